#!/bin/sh
# fetch_corpus.sh en-tiny|en [--output DIR]: English text from Debian packages as train.jsonl, validation.jsonl and
# test.jsonl in DIR (default data/en-tiny or data/en). Nothing is installed; needs apt-get, dpkg and python3, but not root.
#   en-tiny  six novels, a document a chapter: 4 MB (download 2 MB); 1 document in 20 for validation, 1 in 20 for test
#   en       those, essays, manuals and a Bible: 41 MB (download 35 MB); 1 document in 100 each
# Which file a document goes to is FNV-1a64(source/id) modulo 20 or 100. Run again, it does nothing where DIR is complete.
set -eu

fail() {
  echo "fetch_corpus.sh: $*" >&2
  exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
corpus=${1:-}
case $corpus in
  en-tiny) packages="r-cran-janeaustenr" ;;
  en) packages="r-cran-janeaustenr anarchism python3.11-doc postgresql-doc-15 perl-doc sword-text-web" ;;
  *) fail "usage: fetch_corpus.sh en-tiny|en [--output DIR]" ;;
esac
shift
output=$(dirname "$here")/data/$corpus
if [ $# -gt 0 ]; then
  [ "$1" = --output ] && [ $# -eq 2 ] || fail "unknown argument $1; usage: fetch_corpus.sh en-tiny|en [--output DIR]"
  output=$2
fi

for tool in apt-get dpkg python3 sha256sum; do
  command -v $tool >/dev/null || fail "needs $tool: this works on Debian 12; elsewhere bring your own .jsonl or .txt files"
done

# The stamp is written last and holds what made the files: another version of the extractors makes them anew.
version="$corpus $(cat "$0" "$here"/corpus/*.py | sha256sum | cut -d' ' -f1)"
stamp=$output/.complete
if [ "$(cat "$stamp" 2>/dev/null)" = "$version" ] &&
  [ -e "$output/train.jsonl" ] && [ -e "$output/validation.jsonl" ] && [ -e "$output/test.jsonl" ]; then
  echo "fetch_corpus: $output is complete"
  exit 0
fi

for package in $packages; do
  apt-cache show "$package" >/dev/null 2>&1 ||
    fail "apt knows no package $package: run apt-get update (as root), then this again"
done

mkdir -p "$output" || fail "cannot create $output"
work=$(mktemp -d "$output/.tmp-XXXXXX") || fail "cannot write to $output"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/debs" "$work/unpacked" "$work/out"

echo "fetch_corpus: downloading $packages"
# Without the sandbox user, who cannot write to our folder and would be warned about.
(cd "$work/debs" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download $packages) ||
  fail "the download failed: check the network, or run apt-get update (as root), then this again"

echo "fetch_corpus: unpacking and extracting text"
for package in $packages; do
  dpkg -x "$work"/debs/"$package"_*.deb "$work/unpacked/$package" || fail "$package cannot be unpacked"
done
PYTHONDONTWRITEBYTECODE=1 python3 "$here/corpus/build.py" "$corpus" "$work/unpacked" "$work/out" ||
  fail "nothing was written to $output"

rm -f "$stamp"
for part in train validation test; do
  mv "$work/out/$part.jsonl" "$output/$part.jsonl"
done
echo "$version" >"$stamp"
for part in train validation test; do
  echo "fetch_corpus: $output/$part.jsonl: $(wc -l <"$output/$part.jsonl") documents, $(wc -c <"$output/$part.jsonl") bytes"
done
