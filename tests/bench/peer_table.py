#!/usr/bin/env python3
"""mhmoe and PyTorch train the same models by turns on the same threads; prints tokens/s and ratios of medians.

usage: peer_table.py MHMOE [options]; scripts/bench_peers.sh makes what it needs and starts it.
For every model and precision the variants of PyTorch are timed by a micro-batch and an update; the best one and mhmoe
then take whole steps alternately for as long as the model's share of --minutes lasts.
"""
import argparse
import importlib.metadata
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("dense", "smoe_8", "mhmoe_h2", "mhmoe_h3")
# How PyTorch computes experts; the first of either kind was the faster one, the others are tried with --all.
FORMS = {"loop": ("sorted", "loop"), "grouped": ("grouped", "padded")}


class Failed(Exception):
    """One line of why a side gave no number."""


def last_line(text):
    return (text.strip() or "no message").splitlines()[-1]


def reason(process_name, code, errors):
    if code == -9:
        return f"{process_name} was killed, as the system does when memory runs out"
    return f"{process_name} ended with code {code}: {last_line(errors)}"


class Peer:
    """A process that trains one variant in PyTorch and waits, without using the processor, between requests."""

    def __init__(self, run, model, variant, precision, deadline):
        self.name = f"PyTorch {variant} {precision}"
        self.errors = open(run.log_folder / "peer.log", "w+", encoding="utf-8")
        command = [sys.executable, ROOT / "tests/bench/peer_torch.py", "bench", config_of(model), "--variant", variant,
                   "--precision", precision, "--threads", str(run.threads), "--serve", *run.overrides]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env=run.environment)
        self.deadline = deadline
        self.ready = self.receive()

    def ask(self, request, deadline):
        self.deadline = deadline
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # receive() tells why
        return self.receive()

    def receive(self):
        line = read_line(self.process.stdout, self.deadline)
        if line is None:
            self.close()
            raise Failed(f"{self.name}: no answer in the time that was left")
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise Failed(reason(self.name, self.process.returncode, self.errors.read()))
        return json.loads(line)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.errors.close()


def read_line(stream, deadline):
    """A line, "" at the end of the stream, or None at the deadline. The peer writes whole lines, one a request."""
    ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
    return stream.readline() if ready else None


def config_of(model):
    return str(ROOT / "configs/bench" / f"{model}.json")


class Run:
    def __init__(self, arguments):
        self.program, self.threads, self.quick, self.all = arguments.mhmoe, arguments.threads, arguments.quick, arguments.all
        self.repeats = arguments.repeats or (2 if arguments.quick else 5)
        self.end = time.monotonic() + 60 * (arguments.minutes or (8 if arguments.quick else 25))
        pairs = list(arguments.set) + (["train.batch_tokens=1024"] if arguments.quick else [])
        self.overrides = [word for pair in pairs for word in ("--set", pair)]
        self.log_folder = ROOT / "build/peers"
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(self.log_folder / "inductor"),
                            "OMP_NUM_THREADS": str(self.threads), "CUDA_VISIBLE_DEVICES": ""}

    def ours(self, model, precision, deadline):
        """Tokens/s of one step after one that warms up."""
        command = [self.program, "bench", "train", config_of(model), "--device", "cpu", "--threads", str(self.threads),
                   "--warmup", "1", "--steps", "1", "--json", "--set", f"train.precision={precision}", *self.overrides]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failed("mhmoe: no answer in the time that was left") from None
        if done.returncode != 0:
            raise Failed(reason("mhmoe", done.returncode, done.stderr))
        return json.loads(done.stdout)["tokens_per_second"]

    def screen(self, cell, model, deadline):
        """Times the variants one after another; returns the best one's process, still alive."""
        best, tried = None, cell["variants"]
        mixed = "fp32" if cell["precision"] == "fp32" else "autocast"

        def attempt(variant, precision):
            nonlocal best
            name = f"{variant} {precision}"
            if name in tried or (best is not None and time.monotonic() > deadline):
                return
            peer = None
            try:
                peer = Peer(self, model, variant, precision, self.end)
                tried[name] = peer.ask("parts", self.end)["tokens_per_second"]
            except Failed as failure:
                tried[name] = None
                cell["failures"].append(str(failure))
                if peer is not None:
                    peer.close()
                return
            note(f"  PyTorch {name}: {tried[name]:.1f} tokens/s (a micro-batch and an update)")
            if best is None or tried[name] > tried[best[0]]:
                if best is not None:
                    best[1].close()
                best = name, peer
            else:
                peer.close()

        forms = [form for both in FORMS.values() for form in (both if self.all else both[:1])]
        if model in ("dense", "gpt2_124m"):
            forms = forms[:1]
        for form in forms:
            attempt(form, mixed)
        if best is None:
            return None
        # Grouped products are one graph for torch.compile; loops over experts are left out of its graphs.
        eager = best[0].split()[0]
        for form in dict.fromkeys((eager, *(form for form in forms if form == "grouped"))):
            for suffix in (",compile", ",whole") if self.all else (",compile",):
                attempt(form + suffix, mixed)
        if mixed == "autocast":
            attempt(best[0].split()[0], "bf16")
        return best

    def measure(self, model, precision, deadline):
        cell = {"model": model, "precision": precision, "variants": {}, "mhmoe": [], "pytorch": [], "failures": []}
        note(f"{model} {precision}")
        best = self.screen(cell, model, time.monotonic() + 0.6 * (deadline - time.monotonic()))
        if best is not None:
            cell["best_variant"] = best[0]
        try:
            for _ in range(self.repeats):
                started = time.monotonic()
                cell["mhmoe"].append(self.ours(model, precision, self.end))
                if best is not None:
                    cell["pytorch"].append(best[1].ask("step", self.end)["tokens_per_second"])
                shown = f", PyTorch {cell['pytorch'][-1]:.1f}" if cell["pytorch"] else ""
                note(f"  a step each: mhmoe {cell['mhmoe'][-1]:.1f}{shown} tokens/s")
                if 2 * time.monotonic() - started > deadline:  # another one would not fit
                    break
        except Failed as failure:
            cell["failures"].append(str(failure))
        finally:
            if best is not None:
                best[1].close()
        summarize(cell)
        return cell


def summarize(cell):
    for side in ("mhmoe", "pytorch"):
        cell[f"{side}_tokens_per_second"] = statistics.median(cell[side]) if cell[side] else None
    if cell["mhmoe"] and cell["pytorch"]:
        cell["ratio"] = cell["mhmoe_tokens_per_second"] / cell["pytorch_tokens_per_second"]


def note(text):
    print(text, file=sys.stderr, flush=True)


def processor():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def surroundings(run):
    version = subprocess.run([run.program, "--version"], capture_output=True, text=True)
    return {"mhmoe": version.stdout.splitlines()[0] if version.stdout else "unknown",
            "torch": importlib.metadata.version("torch"), "python": platform.python_version(), "cpu": processor(),
            "cores": os.cpu_count(), "threads": run.threads, "load_average_at_start": os.getloadavg()[0]}


def text_table(cells):
    rows = [("model", "precision", "mhmoe", "PyTorch best", "ratio", "repeats",
             "best variant; all by a micro-batch and an update")]
    for cell in cells:
        ours, theirs = (format_speed(cell[f"{side}_tokens_per_second"]) for side in ("mhmoe", "pytorch"))
        others = [f"{name} {format_speed(speed)}" for name, speed in cell["variants"].items()]
        best = cell.get("best_variant", "none")
        rows.append((cell["model"], cell["precision"], ours, theirs, f"{cell['ratio']:.2f}" if "ratio" in cell else "-",
                     str(min(len(cell["mhmoe"]), len(cell["pytorch"]))), f"{best}; " + ", ".join(others)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        left = [cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join((*left, row[-1])))
    return "\n".join(lines)


def format_speed(speed):
    return "-" if speed is None else f"{speed:.1f}"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mhmoe", metavar="MHMOE", help="the program")
    parser.add_argument("--quick", action="store_true", help="one micro-batch a step, at most 8 minutes")
    parser.add_argument("--all", action="store_true", help="try every form of experts first; give it more --minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=(*MODELS, "gpt2_124m"))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, help="at most; by default 5, with --quick 2")
    parser.add_argument("--minutes", type=float, help="for all of it; by default 25, with --quick 8")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key on both sides")
    return parser.parse_args()


def main():
    arguments = parse()
    run = Run(arguments)
    report = surroundings(run)
    note(" · ".join(f"{key} {value}" for key, value in report.items()))
    if report["load_average_at_start"] > 0.5:
        note(f"warning: the machine is busy (load {report['load_average_at_start']:.1f}): these numbers are rough")
    pairs = [(model, precision) for model in arguments.models for precision in arguments.precisions]
    report["results"] = []
    for i, (model, precision) in enumerate(pairs):
        now = time.monotonic()
        if now >= run.end:
            note(f"warning: no time was left for {', '.join(' '.join(pair) for pair in pairs[i:])}")
            break
        report["results"].append(run.measure(model, precision, now + (run.end - now) / (len(pairs) - i)))
        for failure in report["results"][-1]["failures"]:
            note(f"warning: {failure}")
    print(json.dumps(report) if arguments.json else "tokens/s, medians of whole steps\n" + text_table(report["results"]))
    sys.exit(0 if len([cell for cell in report["results"] if "ratio" in cell]) == len(pairs) else 1)


if __name__ == "__main__":
    main()
