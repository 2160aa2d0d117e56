#!/bin/bash
# Fuzzes every reader of files from strangers: usage: scripts/fuzz.sh BUILD SECONDS
# Runs the programs BUILD/fuzz_* (cmake -DMHMOE_FUZZ=ON), as many at once as there are processors, for SECONDS in all.
# What they learn stays in BUILD/corpus. An input that breaks one is left in BUILD and named: mend the reader and keep
# the input in tests/fuzz/corpus/NAME. Exit code 1 if there was one.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 2 ] || { echo "usage: scripts/fuzz.sh BUILD SECONDS" >&2; exit 64; }
build=$1
targets=("$build"/fuzz_*)
[ -x "${targets[0]}" ] || { echo "no programs $build/fuzz_*" >&2; exit 66; }
rounds=$(((${#targets[@]} + $(nproc) - 1) / $(nproc)))
seconds=$(($2 / rounds))

fuzz() {
  local name=${1##*/fuzz_}
  mkdir -p "$build/corpus/$name"
  if "$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -max_len=8192 \
    -artifact_prefix="$build/broken-$name-" "$build/corpus/$name" "tests/fuzz/corpus/$name" >"$build/$name.log" 2>&1; then
    echo "note: $name: $(tail -n 1 "$build/$name.log")"
  else
    tail -n 40 "$build/$name.log"
    echo "FAILED: $name; the whole output is in $build/$name.log"
    return 1
  fi
}
export -f fuzz
export build seconds
printf '%s\0' "${targets[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'fuzz {}'
