#!/bin/bash
# The quickstart in small: own text, few steps, run three times. usage: quickstart_test.sh MHMOE
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
program=$(realpath "$1")
source "$root/scripts/lib.sh"
python=$(find_python matplotlib) || {
  echo "skipped: no python3 with matplotlib"
  exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" - "$root" "$work" <<'PYTHON'
import json, pathlib, sys
root, work = map(pathlib.Path, sys.argv[1:])
text = "\n".join(path.read_text() for path in sorted(root.glob("**/*.md")) if "build" not in path.parts)
parts = [text[i:i + 2000] for i in range(0, len(text), 2000)]
for name, chosen in (("train", parts[2:]), ("validation", parts[:2] * 3)):
    (work / f"{name}.jsonl").write_text("".join(json.dumps({"text": part}) + "\n" for part in chosen))
PYTHON

export QUICKSTART_STEPS=6 QUICKSTART_FOLDER=$work QUICKSTART_TEXT=$work QUICKSTART_VOCABULARY=512 QUICKSTART_PROGRAM=$program
"$root/scripts/quickstart.sh" 2>&1 | tee "$work/first.txt"
for model in Dense SMoE-8 MH-MoE-8; do
  grep -q "^$model  " "$work/first.txt" || die "the table has no row of $model"
  "$python" - "$work/runs/quickstart/$model/perplexity.csv" <<'PYTHON'
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1])))
first, last = (float(row["train/perplexity"]) for row in (rows[0], rows[-1]))
sys.exit(0 if last < first else f"perplexity did not fall: {first} to {last}")
PYTHON
done
[ "$(head -c 4 "$work"/runs/quickstart/report/perplexity_*.png | tail -c 3)" = PNG ] || die "no picture"
grep -q "<title>Six English novels" "$work/runs/quickstart/report/index.html" || die "no page"

"$root/scripts/quickstart.sh" >"$work/second.txt" 2>&1
[ "$(grep -c "finished already" "$work/second.txt")" = 3 ] || die "run again, it trained again"

# Interrupted before SMoE-8 was saved, with a shard lost: just that is made again, to the same perplexity.
rm -r "$work"/runs/quickstart/SMoE-8/checkpoints "$work/data/en-tiny/validation.idx"
"$root/scripts/quickstart.sh" >"$work/third.txt" 2>&1
[ "$(grep -c "finished already" "$work/third.txt")" = 2 ] || die "run again, it did not train just what was missing"
for file in first third; do
  grep "^SMoE-8  " "$work/$file.txt" | tr -s ' ' | sed 's/ [^ ]* [^ ]*$//' >"$work/$file.row"
done
diff "$work/first.row" "$work/third.row" || die "trained again with the same settings, SMoE-8 came out differently"

QUICKSTART_STEPS=4 "$root/scripts/quickstart.sh" >"$work/fourth.txt" 2>&1
! grep -q "finished already" "$work/fourth.txt" || die "other settings, and it kept the old models"
