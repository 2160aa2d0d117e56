#!/bin/bash
# From a fresh clone to perplexity curves of three models on real books: usage: scripts/quickstart.sh
# Safe to run again: what is complete is kept, what is missing or was made by other settings is made anew.
# Environment, for trials and tests:
#   QUICKSTART_STEPS=N         steps of every model, instead of what configs/tiny says
#   QUICKSTART_FOLDER=DIR      where data/ and runs/ are made (default: here)
#   QUICKSTART_TEXT=DIR        train.jsonl and validation.jsonl to use instead of the corpus
#   QUICKSTART_VOCABULARY=N    pieces of the vocabulary (default 4096)
#   QUICKSTART_PROGRAM=PATH    a built mhmoe: nothing is installed or built
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
source scripts/lib.sh
[ $# = 0 ] || die "quickstart.sh takes no arguments; its header lists what the environment can set"

folder=${QUICKSTART_FOLDER:-.}
vocabulary=${QUICKSTART_VOCABULARY:-4096}
overrides=()
if [ -n "${QUICKSTART_STEPS-}" ]; then
  overrides+=(--set "train.steps=$QUICKSTART_STEPS" --set "train.learning_rate.warmup_steps=$((QUICKSTART_STEPS / 10))"
    --set "evaluation.every_steps=$((QUICKSTART_STEPS / 6 + 1))" --set "log.every_steps=$((QUICKSTART_STEPS / 6 + 1))")
fi
[ -z "${QUICKSTART_VOCABULARY-}" ] || overrides+=(--set model.vocab_size=null)
started=$(date +%s)

say "Quickstart: trains a Dense, a sparse MoE and a Multi-Head MoE transformer on six English novels, on this CPU,"
say "with equal FLOPs per token and about equal parameters for the two MoE models, then draws their perplexity."
say "At most 20 minutes on 2 cores from nothing: packages 3, build 6, text 1, training and report 10."

program=${QUICKSTART_PROGRAM:-}
if [ -z "$program" ]; then
  begin_phase packages 3
  install_packages "${PROGRAM_PACKAGES[@]}" "${PLOT_PACKAGES[@]}"
  end_phase

  begin_phase build 6
  mkdir -p build
  use_ccache
  quietly build/quickstart.log cmake -G Ninja -S . -B build/release -DMHMOE_TESTS=OFF -DMHMOE_EMULATED=OFF
  quietly build/quickstart.log ninja -C build/release mhmoe
  program=$root/build/release/mhmoe
  end_phase
fi
program=$(realpath "$program")
mkdir -p "$folder"
cd "$folder"

begin_phase "text" 1
text=${QUICKSTART_TEXT:-data/en-tiny}
if [ -z "${QUICKSTART_TEXT-}" ]; then
  fetch() { "$root/scripts/fetch_corpus.sh" en-tiny --output data/en-tiny; }
  # Package lists may be absent or old; what still fails then says why.
  fetch 2>/dev/null || { as_root apt-get -qq update || true; fetch; }
fi
shards=data/en-tiny
mkdir -p "$shards"
prepared=$(cat "$text/train.jsonl" "$text/validation.jsonl" | sha256sum)$vocabulary
if [ "$(cat "$shards/.prepared" 2>/dev/null)" = "$prepared" ] &&
  [ -e "$shards/tokenizer.model" ] && [ -e "$shards/train.idx" ] && [ -e "$shards/validation.idx" ]; then
  say "already tokenised"
else
  rm -f "$shards/.prepared"
  "$program" prepare --input "$text/train.jsonl" --output "$shards/train" --tokenizer "$shards/tokenizer.model" \
    --train-tokenizer --vocab-size "$vocabulary" --overwrite
  "$program" prepare --input "$text/validation.jsonl" --output "$shards/validation" --tokenizer "$shards/tokenizer.model" \
    --overwrite
  echo "$prepared" >"$shards/.prepared"
fi
end_phase

# Finished models are left as they are and an unfinished one goes on, unless they were made by other settings.
begin_phase "training and report" 10
settings="${overrides[*]} $prepared $(cat "$root"/configs/tiny/*.json | sha256sum)"
if [ "$(cat runs/quickstart/.settings 2>/dev/null)" != "$settings" ]; then
  rm -rf runs/quickstart
  mkdir -p runs/quickstart
  echo "$settings" >runs/quickstart/.settings
fi
"$program" suite "$root/configs/tiny/suite.json" "${overrides[@]}"
end_phase

say ""
say "The curves are in $(realpath runs/quickstart/report)/; the whole took $(in_minutes $(($(date +%s) - started))) min."
