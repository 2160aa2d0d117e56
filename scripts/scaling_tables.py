#!/usr/bin/env python3
"""usage: scaling_tables.py MHMOE [--check]

Writes the tables of docs/scaling.md anew, between their markers, from `MHMOE plan --ranks N --json`. --check writes
nothing and exits 1 if a table is not what it would be.
"""
import argparse
import json
import subprocess

from document_tables import ROOT, table, write_tables

DOCUMENT = ROOT / "docs" / "scaling.md"
# Of each paper: configurations, tokens of a sequence, sequences of a batch, those of a micro-batch as configured.
PAPERS = {
    "paper2": (("paper2/dense", "paper2/smoe_8", "paper2/fine_grained_16", "paper2/mhmoe_h2", "paper2/mhmoe_h3"),
               2048, 256, 8),
    "paper1": (("paper1/english/dense", "paper1/english/smoe_8", "paper1/english/mhmoe_8", "paper1/english/smoe_32",
                "paper1/english/mhmoe_32"), 4096, 256, 4),
}
STRONG, WEAK = (8, 32, 64, 128, 256), (512, 1024, 4096)
COMPARED = "paper2/mhmoe_h3"


def plan(mhmoe, config, ranks, sequences, micro_batch, length, settings=()):
    command = [mhmoe, "plan", ROOT / "configs" / f"{config}.json", "--ranks", str(ranks), "--gpus-per-node", "8",
               "--gpu", "h100", "--json", "--set", f"train.batch_tokens={sequences * length}",
               "--set", f"train.micro_batch_sequences={micro_batch}"]
    for setting in settings:
        command += ["--set", setting]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def milliseconds(seconds):
    return f"{1e3 * seconds:.1f}"


def times(report):
    seconds = report["seconds"]
    steps = ("step", "step_overlapped", "step_without_buckets")
    shares = ("mfu", "mfu_overlapped", "mfu_without_buckets")
    fastest = min(seconds[step] for step in steps)
    return [milliseconds(seconds["compute"]), milliseconds(seconds["all_to_all"]),
            milliseconds(seconds["reduce_scatter"] + seconds["all_gather"]),
            milliseconds(2 * seconds["reduction_latency"]),
            " / ".join(milliseconds(seconds[step]) for step in steps), f"{report['tokens'] / fastest / 1e6:.2f}",
            " / ".join(f"{100 * report[share]:.1f}" for share in shares)]


TIMES = ["compute ms", "all-to-all ms", "reductions ms", "of it latency", "step ms: A / B / C", "M tokens/s, best of these",
         "MFU %, at most: A / B / C"]


def memory(report):
    return f"{report['memory']['worst'] / 2**30:.1f}"


def scaling_table(mhmoe, configs, length, batch, micro_batch):
    rows = []
    for config in configs:
        for ranks in STRONG + WEAK:
            sequences = max(batch, ranks)
            size = min(micro_batch, sequences // ranks)
            report = plan(mhmoe, config, ranks, sequences, size, length, ["parallel.expert_parallel_size=8"])
            m = report["rows_of_an_expert"]
            rows.append([f"`{config.split('/')[-1]}`", str(ranks), "strong" if ranks <= batch else "weak",
                         f"{report['micro_batches']} x {size}", str(m) if m else "-", memory(report)] + times(report))
    return table(["configuration", "ranks", "scaling", "micro-batches x sequences", "M", "GiB a rank"] + TIMES, rows)


def group_table(mhmoe):
    rows = []
    for ranks, micro_batch in ((64, 4), (256, 1)):
        for group in (1, 2, 4, 8, 16, 32):
            routes = ("off", "on") if group > 8 else ("off",)
            for route in routes:
                report = plan(mhmoe, COMPARED, ranks, 256, micro_batch, 2048,
                              [f"parallel.expert_parallel_size={group}", f"parallel.hierarchical_all_to_all={route}"])
                rows.append([str(ranks), str(group), "hierarchical" if report["hierarchical"] else "flat",
                             memory(report)] + times(report))
    return table(["ranks", "expert-parallel size", "all-to-all", "GiB a rank"] + TIMES, rows)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.partition("\n")[0].removeprefix("usage: "))
    parser.add_argument("mhmoe")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    tables = {paper: scaling_table(options.mhmoe, *rest) for paper, rest in PAPERS.items()}
    tables["groups"] = group_table(options.mhmoe)
    write_tables(DOCUMENT, tables, options.check, f"scripts/scaling_tables.py {options.mhmoe}")


if __name__ == "__main__":
    main()
