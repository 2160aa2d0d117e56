#!/usr/bin/env python3
"""usage: compare_losses.py RUN RUN RELATIVE-TOLERANCE

Compares the training losses of two run folders step by step; exits 1 if they differ by more, or are not the same steps.
"""
import json
import sys
from pathlib import Path


def losses(run):
    with open(Path(run) / "metrics.jsonl", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {record["step"]: record["train/loss"] for record in records if "train/loss" in record}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    first, second, tolerance = losses(sys.argv[1]), losses(sys.argv[2]), float(sys.argv[3])
    if not first or first.keys() != second.keys():
        sys.exit(f"{sys.argv[1]} logged {len(first)} steps, {sys.argv[2]} {len(second)}: not the same ones")
    worst = max(first, key=lambda step: abs(first[step] - second[step]) / abs(first[step]))
    difference = abs(first[worst] - second[worst]) / abs(first[worst])
    print(f"{len(first)} steps; largest difference {difference:.2e} of the loss at step {worst} "
          f"({first[worst]:.6f} and {second[worst]:.6f}), allowed {tolerance:.0e}; last loss {first[max(first)]:.4f}")
    sys.exit(0 if difference <= tolerance else 1)


if __name__ == "__main__":
    main()
