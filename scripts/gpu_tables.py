#!/usr/bin/env python3
"""usage: gpu_tables.py MHMOE [--ptxas PTXAS.TXT] [--check]

Writes the tables of docs/gpu_performance.md anew, between their markers: floors from `MHMOE bench ops --floors`, and,
with --ptxas, registers and occupancy of every kernel from the CUDA build's ptxas.txt. --check writes nothing and exits 1
if a table is not what it would be.
"""
import argparse
import json
import re
import subprocess

import launches
import ptxas
from document_tables import ROOT, table, write_tables

DOCUMENT = ROOT / "docs" / "gpu_performance.md"
CONFIGS = ("paper2/dense", "paper2/smoe_8", "paper2/fine_grained_16", "paper2/mhmoe_h2", "paper2/mhmoe_h3",
           "paper1/english/dense", "paper1/english/smoe_8", "paper1/english/mhmoe_8", "paper1/english/mhmoe_32")
DETAILED = ("paper2/mhmoe_h3", "paper1/english/mhmoe_8")

# What a streaming multiprocessor of sm_90 has. Registers are given to warps in units of 256, and every block takes 1 KiB
# of shared memory for itself.
REGISTERS, WARPS, BLOCKS, SHARED, SHARED_PER_BLOCK = 65536, 64, 32, 228 * 1024, 1024


def floors(mhmoe, config):
    command = [mhmoe, "bench", "ops", ROOT / "configs" / f"{config}.json", "--floors", "--gpu", "h100", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def step_table(reports):
    rows = []
    for config, report in reports.items():
        floor = report["floor"]
        memory = sum(op["calls"] * op["floor_seconds"] for op in report["ops"] if op["bound"] == "memory")
        rows.append([f"`{config}`", f"{floor['seconds'] * 1e3:.0f}", f"{floor['bytes'] / 1e9:.0f}",
                     f"{floor['flops'] / 1e12:.0f}", f"{floor['model_flops'] / 1e12:.0f}",
                     f"{100 * memory / floor['seconds']:.0f} %", f"{floor['tokens'] / floor['seconds'] / 1e3:.0f}",
                     f"{100 * floor['mfu']:.1f} %"])
    return table(["configuration", "floor ms", "GB moved", "TFLOP done", "TFLOP of the model", "time bound by memory",
                  "1000 tokens/s", "MFU at most"], rows)


def op_table(report):
    rows = []
    for op in report["ops"]:
        share = op["calls"] * op["floor_seconds"] / report["floor"]["seconds"]
        rows.append([f"`{op['op']}`", op["shape"], str(op["calls"]), f"{op['bytes'] / 1e6:.2f}", f"{op['flops'] / 1e9:.2f}",
                     f"{op['floor_seconds'] * 1e6:.2f}", op["bound"], f"{100 * share:.2f} %"])
    return table(["op", "shape", "calls a step", "MB", "GFLOP", "floor us", "bound by", "of the step"], rows)


def blocks_per_multiprocessor(threads, registers, shared):
    warps = (threads + 31) // 32
    per_warp = (registers * 32 + 255) // 256 * 256
    return min(BLOCKS, WARPS // warps, REGISTERS // (per_warp * warps), SHARED // (shared + SHARED_PER_BLOCK))


def occupancy_of(kernels, launch):
    """Of those of the kernels for sm_90 that run at the papers' sizes, the one with the most registers."""
    registers = [kernel.registers for kernel in kernels if kernel.architecture == "sm_90" and launch.instance in kernel.name]
    if not registers or launch.threads is None or launch.shared is None:
        sys.exit(f"{kernels[0].source}: {kernels[0].name}: scripts/launches.py does not know its launch")
    shared = max(kernel.shared for kernel in kernels) + launch.shared
    blocks = blocks_per_multiprocessor(launch.threads, max(registers), shared)
    return f"{blocks} blocks, {100 * blocks * ((launch.threads + 31) // 32) / WARPS:.0f} %"


def kernel_table(path):
    groups, started = {}, launches.read()
    for kernel in ptxas.read(path):
        groups.setdefault((kernel.source, kernel.name.partition("<")[0]), []).append(kernel)
    rows = []
    for (source, name), kernels in groups.items():
        registers = {}
        for kernel in kernels:
            registers.setdefault(kernel.architecture, []).append(kernel.registers)
        counts = " ".join(f"{max(registers[a])}" if a in registers else "-" for a in ("sm_80", "sm_90", "sm_100"))
        launch = started.get((source, name)) or started.get(name) or launches.Launch()
        static = max(kernel.shared for kernel in kernels)
        rows.append([f"`{name}`", f"`{source}`", str(len(registers.get("sm_90", []))), str(launch.threads), counts,
                     f"{static} + {launch.shared}", str(max(k.stack for k in kernels)),
                     str(max(k.spilled for k in kernels)), occupancy_of(kernels, launch)])
    return table(["kernel", "source", "instances", "threads a block", "registers, at most (sm_80 sm_90 sm_100)",
                  "shared bytes, static + dynamic", "stack", "spilled", "on one multiprocessor of sm_90"], rows)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.partition("\n")[0].removeprefix("usage: "))
    parser.add_argument("mhmoe")
    parser.add_argument("--ptxas")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    reports = {config: floors(options.mhmoe, config) for config in CONFIGS}
    tables = {"steps": step_table(reports)}
    tables.update({config: op_table(reports[config]) for config in DETAILED})
    if options.ptxas:
        tables["kernels"] = kernel_table(options.ptxas)
    command = f"scripts/gpu_tables.py {options.mhmoe}" + (f" --ptxas {options.ptxas}" if options.ptxas else "")
    write_tables(DOCUMENT, tables, options.check, command)


if __name__ == "__main__":
    main()
