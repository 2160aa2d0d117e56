#!/usr/bin/env python3
"""Deletes barriers and waits of the CUDA backend one by one; the emulator's tests must notice each time.

usage: mutate_kernels.py BUILD [--changed-since COMMIT] [--only TEXT] [--minutes M] [--jobs N] [--table FILE]

BUILD is a build folder with tests. A mutant is caught when a test fails, crashes or hangs. One that is not must stand in
kernels/mutants_survivors.txt with the reason why nothing can notice it. Exit code 1: a mutant survived that does not
stand there, or one stands there that is caught or gone.
"""
import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SURVIVORS = ROOT / "kernels/mutants_survivors.txt"
PROGRAMS = ("test_cuda", "test_ops")
MODULES = ("mhmoe_emulated", "mhmoe_test_kernels")
TIMEOUT_S = 120
# Suites are found by the source's name, those of headers by who includes them; these sources' have other names.
SUITES = {"assign_slots": "routing", "adam": "adam", "grouped_bias_backward": "grouped", "grouped_matmul": "grouped",
          "grouped_weight_grad": "grouped", "partials": "matmul"}

# What is deleted: a whole statement. Only the emulator's twins of these files are compiled (tests/cuda/shadow).
STATEMENTS = re.compile(
    r"\b__sync(?:threads|warp)\([^()]*\);"
    r"|\bcp_async_(?:commit\(\)|wait<[^<>]*>\(\));"
    r"|\bMHMOE_CUDA_CHECK\(cuda(?:StreamWaitEvent|EventRecord|EventSynchronize|StreamSynchronize)\([^;]*\)\);"
    r"|(?<![\w.])synchronize\(\);", re.DOTALL)
NOT_COMPILED = ("kernels/ptx.cuh", "kernels/device.cuh")
# A copy that is waited for with one more still under way is as wrong as one that is not waited for.
WEAKER_WAIT = re.compile(r"cp_async_wait<([^<>]*)>\(\);")
FUNCTION = re.compile(r"^ {0,2}(?!return|if|for|while|else|switch)[\w:<>,&*~ ]*?\b(~?\w+)\([^;]*$")


@dataclass(frozen=True)
class Mutant:
    file: str
    key: str  # stable while lines move: file, function, statement, its number in the function
    line: int
    text: str  # of the whole file, mutated


@dataclass
class Mode:
    name: str
    program: str
    environment: dict
    everything: bool = False  # else only the suites of the mutant's file


MODES = [
    Mode("own tests", "test_cuda", {}),
    Mode("own tests of the op, random order", "test_ops", {"EMULATOR_ORDER": "random:1"}),
    Mode("own tests, copies done at issue", "test_cuda", {"EMULATOR_CP_ASYNC": "issue"}),
    Mode("own tests of the op, reversed order", "test_ops", {"EMULATOR_ORDER": "reversed"}),
    Mode("all tests", "test_cuda", {}, everything=True),
]


def mutants_of(path):
    """Every deletion in one file; comments are left alone."""
    text = path.read_text()
    code = re.sub(r"//[^\n]*", lambda m: " " * len(m[0]), text)
    name = str(path.relative_to(ROOT))
    counts, result = {}, []
    for match in STATEMENTS.finditer(code):
        function = "file"
        for line in code[:match.start()].split("\n")[:-1]:
            found = FUNCTION.match(line)
            function = found[1] if found else function
        variants = [("", ";")]
        if weaker := WEAKER_WAIT.fullmatch(match[0]):
            variants.append((" weakened", f"cp_async_wait<{weaker[1]} + 1>();"))
        statement = re.sub(r"\s+", " ", match[0])
        counts[function, statement] = counts.get((function, statement), 0) + 1
        for suffix, replacement in variants:
            key = f"{name} {function} {statement} #{counts[function, statement]}{suffix}"
            mutated = text[:match.start()] + replacement + text[match.end():]
            result.append(Mutant(name, key, text.count("\n", 0, match.start()) + 1, mutated))
    return result


def all_mutants():
    files = sorted([*ROOT.glob("kernels/*.cu"), *ROOT.glob("kernels/*.cuh"), *ROOT.glob("src/cuda/*.cc")])
    return [m for path in files if str(path.relative_to(ROOT)) not in NOT_COMPILED for m in mutants_of(path)]


def listed_survivors():
    """key -> reason; a line is "key: reason"."""
    if not SURVIVORS.exists():
        return {}
    lines = [line.strip() for line in SURVIVORS.read_text().split("\n")]
    entries = [line.rsplit(": ", 1) for line in lines if line and not line.startswith("#")]
    return {key: reason for key, reason in entries}


def users_of(file):
    """The stems of the CUDA sources that include the file, directly or not; its own, if it is one."""
    found = {file}
    while True:
        names = {str(p.relative_to(ROOT)) for p in ROOT.glob("kernels/*.cu*")
                 if any(f'#include "{name}"' in p.read_text() for name in found)}
        if names <= found:
            return {Path(name).stem for name in found if name.endswith(".cu")}
        found |= names


class Scratch:
    """A copy of the tree with a build of the emulated module of its own, and the test programs beside it."""

    def __init__(self, folder, build):
        self.tree, self.build = folder / "tree", folder / "build"
        files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                               capture_output=True, text=True, check=True).stdout.split("\n")
        for name in filter(None, files):
            source, target = ROOT / name, self.tree / name
            if source.is_file() and not (target.exists() and target.read_bytes() == source.read_bytes()):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
        for old in set(self.tree.rglob("*")) - {self.tree / name for name in files}:
            if old.is_file():
                old.unlink()
        launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        subprocess.run(["cmake", "-G", "Ninja", "-S", self.tree, "-B", self.build, *launcher], check=True,
                       stdout=subprocess.DEVNULL)
        self.listed = {}
        for program in PROGRAMS:
            shutil.copy2(build / program, self.build / program)
            out = subprocess.run([build / program, "--gtest_list_tests"], capture_output=True, text=True, check=True).stdout
            self.listed[program] = [line.strip(".") for line in out.split("\n") if line.endswith(".")]
        if error := self.compile():
            sys.exit(f"mutate_kernels.py: the tree does not build:\n{error}")

    def compile(self):
        """Empty, or what the compiler said."""
        done = subprocess.run(["ninja", "-j1", "-C", self.build, *MODULES], capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stdout

    def suites(self, program, file):
        """A filter for the suites of the sources that hold the file; empty where none is known."""
        stems = {re.sub(r"[^a-z]", "", SUITES.get(stem, stem)) for stem in users_of(file)}
        own = [name for name in self.listed[program] if any(stem in name.lower() for stem in stems)]
        return ":".join(f"{name}.*" for name in own)

    def passes(self, mode, file, operations):
        own = "" if mode.everything else self.suites(mode.program, file)
        environment = dict(os.environ, OMP_NUM_THREADS="1", **mode.environment)
        if mode.program == "test_ops":
            environment["MHMOE_TEST_DEVICE"] = "emulated"
        chosen = own or (operations if mode.program == "test_ops" else "*")
        command = [self.build / mode.program, f"--gtest_filter={chosen}", "--gtest_fail_fast"]
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def caught_by(self, mutant, operations):
        """The first mode that notices; "compiler", or None."""
        target = self.tree / mutant.file
        original = target.read_text()
        target.write_text(mutant.text)
        try:
            if self.compile():
                return "compiler"
            return next((m.name for m in MODES if not self.passes(m, mutant.file, operations)), None)
        finally:
            target.write_text(original)


def operations_on_the_device():
    """The filter of the ops' own tests that can run on the emulated device."""
    listed = re.search(r"set\(emulated_op_tests\s+(.*?)\)", (ROOT / "tests/cuda/CMakeLists.txt").read_text(), re.DOTALL)
    return ":".join(listed[1].split())


def changed_files(commit):
    out = subprocess.run(["git", "diff", "--name-only", commit, "--"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(out.stdout.split("\n"))


def run(mutants, args):
    """(mutant, who caught it: a mode, "compiler", None for nobody, "not tried") for each."""
    build = Path(args.build).resolve()
    subprocess.run(["ninja", "-C", build, *PROGRAMS, *MODULES], check=True, stdout=subprocess.DEVNULL)
    operations = operations_on_the_device()
    scratches = queue.Queue()
    for i in range(min(args.jobs, len(mutants))):
        scratches.put(Scratch(build / f"mutants/{i}", build))
    for mode in MODES:
        if not scratches.queue[0].passes(mode, mutants[0].file, operations):
            sys.exit(f"mutate_kernels.py: {mode.program} fails without any mutant ({mode.name})")
    deadline = time.monotonic() + 60 * args.minutes

    def try_one(mutant):
        if time.monotonic() > deadline:
            return "not tried"
        scratch = scratches.get()
        try:
            caught = scratch.caught_by(mutant, operations)
        finally:
            scratches.put(scratch)
        print(f"{caught or 'SURVIVED':40} {mutant.file}:{mutant.line}  {mutant.key}", flush=True)
        return caught

    with ThreadPoolExecutor(args.jobs) as pool:
        return list(zip(mutants, pool.map(try_one, mutants)))


def table(outcomes, reasons):
    lines = ["| mutant | caught by |", "| --- | --- |"]
    for mutant, caught in outcomes:
        lines.append(f"| `{mutant.key}` | {caught or 'nobody: ' + reasons.get(mutant.key, 'not listed')} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build")
    parser.add_argument("--changed-since", metavar="COMMIT", help="only mutants of files that changed")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose name has this text")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", metavar="FILE", help="the outcome as a Markdown table")
    args = parser.parse_args()

    everything, reasons = all_mutants(), listed_survivors()
    chosen = [m for m in everything if args.only in m.key]
    if args.changed_since:
        changed = changed_files(args.changed_since)
        chosen = [m for m in chosen if m.file in changed]
    outcomes = run(chosen, args) if chosen else []
    problems = [f"{SURVIVORS.name}: there is no mutant \"{key}\" any more" for key in reasons
                if key not in {m.key for m in everything}]
    for mutant, caught in outcomes:
        if caught is None and mutant.key not in reasons:
            problems.append(f"{mutant.file}:{mutant.line}: nobody notices that \"{mutant.key}\" is gone: "
                            f"add a test, or a line to {SURVIVORS.relative_to(ROOT)}")
        if mutant.key in reasons and caught not in (None, "not tried"):
            problems.append(f"{SURVIVORS.name}: \"{mutant.key}\" is caught by {caught}: drop the line")
    if args.table:
        Path(args.table).write_text(table(outcomes, reasons))
    tried = [caught for _, caught in outcomes if caught != "not tried"]
    print(f"{len(everything)} mutants, {len(tried)} tried, {sum(c is not None for c in tried)} caught, "
          f"{sum(c is None for c in tried)} survived ({len(reasons)} listed)")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
