#!/usr/bin/env python3
"""Kills the real program at every system call of its checkpoints, makes calls fail, fills a disk; each time what was
saved must verify, and the run must go on to the bytes of one that was left alone. usage: kill_sweep_test.py MHMOE"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

CALLS = "openat,write,fsync,close,rename,mkdir,unlink,rmdir"
CONFIG = {
    "name": "tiny",
    "data": {"train": [{"path": "text"}], "validation": [{"name": "text", "path": "text"}], "tokenizer": "bytes",
             "sequence_length": 16},
    "model": {"layers": 1, "hidden_size": 8, "attention_heads": 1, "ffn": {"hidden_size": 8}},
    "train": {"steps": 2, "batch_tokens": 32, "micro_batch_sequences": 2, "precision": "fp32",
              "learning_rate": {"peak": 1e-2, "final": 1e-3, "warmup_steps": 1}},
    "evaluation": {"every_steps": 2, "tokens": 32},
    "checkpoint": {"every_steps": 1, "keep_last": 1, "asynchronous": False},
}


def skip(why):
    print("skipped:", why)
    sys.exit(77)


class Sweep:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.count = 0

    def run(self, *arguments, before=()):
        return subprocess.run([*map(str, before), self.program, *map(str, arguments)], cwd=self.folder,
                              capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))

    def train(self, output, *options, before=()):
        return self.run("train", "tiny.json", "--threads", "1", "--output-dir", output, *options, before=before)

    def fresh(self):
        if self.count:
            shutil.rmtree(self.folder / f"run{self.count}", ignore_errors=True)
        self.count += 1
        return f"run{self.count}"

    def last(self, output):
        manifest = json.loads((self.folder / output / "tiny/checkpoints/step-00000002/manifest.json").read_text())
        return manifest["state"]["run_hash"], {name: t["xxh3"] for name, t in manifest["tensors"].items()}

    def verify(self, output):
        """Every checkpoint in the folder is good; returns how many there are."""
        result = self.run("checkpoint", "verify", f"{output}/tiny")
        assert result.returncode in (0, 66), result.stdout + result.stderr
        return result.stdout.count(": good: ")


def points_of(trace, output):
    """(call, its number among calls of that name, path) of each call on the checkpoints of the run."""
    numbers, points = Counter(), []
    for line in trace.read_text().splitlines():
        name = line.split("(")[0]
        numbers[name] += 1
        paths = re.findall(rf'{output}/tiny/checkpoints/?([^">]*)', line)
        if paths and not (name == "openat" and "O_RDONLY" in line):
            points.append((name, numbers[name], re.sub(r"\.tmp-[^/]*", ".tmp", paths[-1])))
    return points


def sweep_kills(sweep):
    reference, output = "reference", "recorded"
    result = sweep.train(reference)
    assert result.returncode == 0, result.stderr
    trace = sweep.folder / "trace"
    strace = ["strace", "-qq", "-y", "-o", trace, "-e", f"trace={CALLS}"]
    assert sweep.train(output, before=strace).returncode == 0
    points = points_of(trace, output)
    assert len(points) > 60 and {"fsync", "rename", "mkdir", "unlink", "rmdir", "write"} <= {p[0] for p in points}, points
    visited = []
    for name, number, path in points:
        output = sweep.fresh()
        result = sweep.train(output, before=strace + ["-e", f"inject={name}:signal=KILL:when={number}"])
        assert result.returncode in (-9, 137), (name, number, path, result.returncode, result.stderr)
        reached = points_of(trace, output)
        visited.append(reached[-1] if reached else None)
        good = sweep.verify(output)
        first_done = next(i for i, p in enumerate(points) if p[0] == "rename" and p[2] == "latest")
        assert good >= 1 or len(visited) <= first_done + 1, f"nothing is left after {name} {number} {path}"
        result = sweep.train(output)
        assert result.returncode == 0, (name, number, path, result.stderr)
        assert sweep.last(output) == sweep.last(reference), f"another model after {name} {number} {path}"
    assert visited == points, [pair for pair in zip(visited, points) if pair[0] != pair[1]][:5]
    print(f"killed at {len(points)} calls: {dict(Counter(p[0] for p in points))}")
    return points


def sweep_errors(sweep, points):
    """From the second save on, calls of one name fail for good: the first checkpoint stays, the reason is said."""
    start = next(i for i, p in enumerate(points) if p[0] == "mkdir" and p[2].startswith("step-00000002"))
    for name, error, text in (("fsync", "EIO", "Input/output error"), ("mkdir", "ENOSPC", "No space left on device"),
                              ("rename", "EROFS", "Read-only file system")):
        number = next(p[1] for p in points[start:] if p[0] == name)
        output = sweep.fresh()
        result = sweep.train(output, before=["strace", "-qq", "-o", os.devnull, "-e", f"trace={name}", "-e",
                                             f"inject={name}:error={error}:when={number}+"])
        assert result.returncode == 74, (name, result.returncode, result.stderr)
        assert text in result.stderr.splitlines()[-1], result.stderr
        assert sweep.verify(output) == 1
        assert sweep.train(output).returncode == 0
        assert sweep.last(output) == sweep.last("reference")
    print("errors of fsync, mkdir and rename: said, and nothing lost")


def full_disk(sweep):
    inside = ["unshare", "-Urm", "bash", "-c",
              'mkdir -p small && mount -t tmpfs -o size=400k tmpfs small && "$@"; code=$?; '
              'cp -r small kept; exit $code', "bash"]
    probe = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    if probe.returncode != 0:
        print("skipped: a full disk (no user namespaces here)")
        return
    options = [f"--set={key}" for key in ("train.steps=40", "checkpoint.keep_last=40", "checkpoint.max_failed_saves=2",
                                          "log.every_steps=40", "evaluation.every_steps=40")]
    result = sweep.train("small", *options, before=inside)
    assert result.returncode == 74, (result.returncode, result.stderr)
    last = result.stderr.splitlines()[-1]
    assert "KiB are free" in last or "No space left on device" in last, result.stderr
    good = sweep.verify("kept")
    assert good >= 2, (good, result.stderr)
    print(f"a full disk: {good} checkpoints and the message: {last}")


def main():
    program = os.path.realpath(sys.argv[1])
    if shutil.which("strace") is None:
        skip("no strace")
    if subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True).returncode != 0:
        skip("strace may not trace here")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk would make it slow and test nothing more
    with tempfile.TemporaryDirectory(dir=memory) as name:
        sweep = Sweep(program, Path(name))
        (sweep.folder / "tiny.json").write_text(json.dumps(CONFIG))
        (sweep.folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
        result = sweep.run("prepare", "--input", "text.txt", "--output", "text", "--tokenizer", "bytes")
        assert result.returncode == 0, result.stderr
        points = sweep_kills(sweep)
        sweep_errors(sweep, points)
        full_disk(sweep)


if __name__ == "__main__":
    main()
