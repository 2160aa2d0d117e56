#!/bin/bash
# What ranks cost on this machine's CPU: one process with 2 threads against 2 ranks with one each (expert-parallel size 2),
# by turns, at equal batches; and what parallel.width_invariant and parallel.verify_transfers cost. Usage:
# scripts/bench_ranks.sh [--quick] [CONFIG...]; by default paper 2's MH-MoE layers, configs/bench/mhmoe_h2.json and h3.
# A benchmark for a quiet machine, not a test: about 12 minutes, with --quick 3 (four blocks instead of twelve).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

settings=(--device cpu --json --warmup 1 --steps 2)
repeats=3
if [ "${1:-}" = --quick ]; then
  settings+=(--set model.layers=4)
  repeats=2
  shift
fi
[ $# -gt 0 ] || set -- configs/bench/mhmoe_h2.json configs/bench/mhmoe_h3.json

use_ccache
quietly build/bench_ranks.log cmake --preset cpu
quietly build/bench_ranks.log ninja -C build/cpu mhmoe
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# NAME RANKS SETTINGS...: one measurement more of that name.
measure() {
  local name=$1 ranks=$2
  shift 2
  local command=(build/cpu/mhmoe bench train "$config" "${settings[@]}" --threads $((2 / ranks)) "$@")
  if [ "$ranks" -gt 1 ]; then
    command=(mpirun --allow-run-as-root --oversubscribe --mca btl_vader_single_copy_mechanism none -np "$ranks" "${command[@]}"
      --set parallel.expert_parallel_size=2)
  fi
  "${command[@]}" 2>"$results/errors" >>"$results/$name" || die "$name failed: $(tail -n 1 "$results/errors")"
}

echo "load average at the start: $(cut -d' ' -f1 /proc/loadavg); $(nproc) cores"
for config in "$@"; do
  rm -f "$results"/*
  for _ in $(seq "$repeats"); do
    measure one_process 1
    measure two_ranks 2
    measure width_invariant 2 --set parallel.width_invariant=true
    measure verify_transfers 2 --set parallel.verify_transfers=true
  done
  python3 - "$config" "$results" <<'PYTHON'
import json, statistics, sys
config, folder = sys.argv[1:]
print(f"{config}: medians, and ratios to one process with 2 threads")
print(f"{'':18} {'tokens/s':>9} {'ratio':>7} {'rows':>7} {'reduce':>7} {'weights':>8} {'memory a process':>17}")
base = None
for name in ["one_process", "two_ranks", "width_invariant", "verify_transfers"]:
    runs = [json.loads(line) for line in open(f"{folder}/{name}")]
    speed = statistics.median(run["tokens_per_second"] for run in runs)
    base = base or speed
    def waiting(kind):
        return statistics.median(run["waiting_seconds_per_step"][kind] / run["seconds_per_step"] for run in runs)
    memory = max(run["process_peak_bytes"] for run in runs)
    print(f"{name:18} {speed:9.1f} {speed / base:7.3f} {waiting('all_to_all'):7.1%} {waiting('reduction'):7.1%} "
          f"{waiting('gather'):8.1%} {memory / 2**30:13.2f} GiB")
PYTHON
done
echo "rows, reduce, weights: waiting for routed rows, reductions, gathered weights, as shares of a step"
