#!/usr/bin/env python3
"""Deletes barriers, waits and looks at peers of the CUDA backend one by one; the emulator's tests must notice.

usage: mutate_kernels.py BUILD [options]; --help lists them

BUILD is a build folder with tests; --races: one by clang with ThreadSanitizer, asked where no test fails. A mutant is
caught when a test fails, crashes or hangs. One that is not must stand in kernels/mutants_survivors.txt with the reason
why nothing can notice it. Exit code 1: a mutant survived that is not listed, or a listed one is caught or gone.
"""
import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import barriers

ROOT = barriers.ROOT
SURVIVORS = ROOT / "kernels/mutants_survivors.txt"
MODULE = "mhmoe_emulated"
CPU_S, WALL_S = 120, 1800  # a hang is told by CPU time, so that a busy machine catches nothing
# Suites are found by the source's name, those of headers by who includes them; these sources' have other names.
SUITES = {"assign_slots": "routing", "partials": "matmul", "cublas": "matmul", "context": "module"}

# everything: run all suites, not only those of the mutant's file. ranks: of the program, which tries mutants of SHARED
# alone, all of its tests at once.
Mode = namedtuple("Mode", "name program environment everything ranks", defaults=[False, 0])
# What only several ranks can notice.
SHARED = ("src/cuda/nccl_communicator.cc", "src/cuda/peers.cc")
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl_vader_single_copy_mechanism", "none", "-np"]
RANKS_WALL_S = 240  # ranks wait for each other in sleep: no CPU time tells of it

MODES = [
    Mode("own tests", "test_cuda", {}),
    Mode("own tests of the op, random order", "test_ops", {"EMULATOR_ORDER": "random:1"}),
    Mode("own tests, copies done at issue", "test_cuda", {"EMULATOR_CP_ASYNC": "issue"}),
    Mode("own tests of the op, reversed order", "test_ops", {"EMULATOR_ORDER": "reversed"}),
    Mode("all tests, streams as late as permitted", "test_cuda", {"EMULATOR_STREAMS": "deferred:1"}, everything=True),
    Mode("tests of four ranks", "test_nccl_communicator", {}, everything=True, ranks=4),
]
RACE_MODES = [Mode("race detector", "test_cuda", {"TSAN_OPTIONS": "halt_on_error=1:report_bugs=1"})]


def listed_survivors():
    """key -> reason; a line is "key: reason"."""
    lines = [line.strip() for line in SURVIVORS.read_text().split("\n")]
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))


class Scratch:
    """Builds the emulated module, or the test programs, with one file changed. BUILD is only read."""

    def __init__(self, folder, build, modes):
        self.folder, self.build, self.modes = folder, build, modes
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for library in build.glob("libmhmoe_test_*.so"):
            shutil.copy2(library, folder)
        self.listed = {}
        for program in {mode.program for mode in modes}:
            shutil.copy2(build / program, folder)
        for program in {mode.program for mode in modes if not mode.ranks}:
            command = [build / program, "--gtest_list_tests"]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            self.listed[program] = [line.strip(".") for line in out.split("\n") if line.endswith(".")]
        # The module's sources, and those that every program has in itself.
        self.links, self.compiles, self.stale = {}, {}, {f"lib{MODULE}.so"}
        for program in {mode.program for mode in modes}:
            self.read_commands(program, program, "src/device/")
        self.read_commands(MODULE, f"lib{MODULE}.so", "")

    def read_commands(self, target, output, folder):
        """How the target's sources of a folder are compiled, and how it is linked, without what is done after that."""
        out = subprocess.run(["ninja", "-C", self.build, "-t", "commands", target], stdout=subprocess.PIPE, text=True)
        for line in out.stdout.split("\n"):
            if found := re.search(rf" -c ({re.escape(str(ROOT / folder))}\S*)$", line):
                self.compiles[found[1]] = line
            elif found := re.search(rf"^: && (.* -o {re.escape(output)} .*?) && ", line):
                self.links[output] = found[1]

    def restore(self):
        """What an earlier mutant changed is as in the build again."""
        for output in self.stale:
            shutil.copy2(self.build / output, self.folder)
        self.stale = set()

    def shell(self, command):
        return subprocess.run(command, shell=True, cwd=self.build, capture_output=True).returncode == 0

    def compile(self, mutant, user):
        """Compiles one source that holds the changed file. False if the compiler refuses."""
        command = self.compiles[str(ROOT / user)]
        output = re.search(r" -o (\S+)", command)[1]
        self.objects[output] = self.folder / (Path(user).name + ".o")
        command = command.replace(f" -o {output}", f" -o {self.objects[output]}")
        command = re.sub(r" -MF \S+", f" -MF {self.objects[output]}.d", command)
        # The changed file comes first: as the source itself, or where the sources look for headers.
        if user == mutant.file:
            command = command.replace(f" -c {ROOT / user}", f" -c {self.folder / user}")
        return self.shell(command.replace(" -I", f" -I{self.folder} -I", 1))

    def link(self):
        """Links all that have one of the compiled sources in them."""
        for output, command in self.links.items():
            if not any(f" {old} " in command for old in self.objects):
                continue
            self.stale.add(output)
            command = command.replace(f" -o {output} ", f" -o {self.folder / output} ")
            for old, new in self.objects.items():
                command = command.replace(f" {old} ", f" {new} ")
            if not self.shell(command):
                return False
        return True

    def suites(self, program, user):
        """A filter for the suites that are named like the source or the beginning of its name; empty where none is."""
        words = SUITES.get(Path(user).stem, Path(user).stem).split("_")
        for count in range(len(words), 0, -1):
            own = [f"{name}.*" for name in self.listed[program] if "".join(words[:count]) in name.lower()]
            if own:
                return ":".join(own)
        return ""

    def passes(self, mode, suites):
        environment = dict(os.environ, OMP_NUM_THREADS="1", **mode.environment)
        if mode.program == "test_ops":
            environment["MHMOE_TEST_DEVICE"] = "emulated"
        launcher = [*MPIRUN, str(mode.ranks)] if mode.ranks else []
        command = ["bash", "-c", f'ulimit -t {CPU_S} && exec "$@"', "-", *launcher, self.folder / mode.program,
                   f"--gtest_filter={suites}", *([] if mode.ranks else ["--gtest_fail_fast"])]
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=RANKS_WALL_S if mode.ranks else WALL_S)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def try_modes(self, clean, user, shared):
        """The first mode that notices; with `user`, those that run its own suites, else those that run all."""
        for mode in self.modes:
            if mode.ranks and not shared:
                continue
            suites = "*" if user is None else self.suites(mode.program, user)
            if mode.everything == (user is None) and suites and not self.passes(mode, suites):
                clean.expect_pass(mode, suites)
                return mode.name
        return None

    def caught_by(self, mutant, clean):
        """The first mode that notices; "compiler", or None. A header's sources are tried one after another."""
        changed = self.folder / mutant.file
        changed.parent.mkdir(parents=True, exist_ok=True)
        changed.write_text(mutant.text)
        self.objects = {}
        self.restore()
        try:
            for user in barriers.users_of(mutant.file):
                if not (self.compile(mutant, user) and self.link()):
                    return "compiler"
                if caught := self.try_modes(clean, user, False):
                    return caught
            return self.try_modes(clean, None, mutant.file in SHARED)
        finally:
            changed.unlink()


class Clean(Scratch):
    """The module as it is: a test that fails on it too has noticed nothing."""

    def __init__(self, folder, build, modes):
        super().__init__(folder, build, modes)
        self.restore()
        self.lock, self.passed = threading.Lock(), set()

    def expect_pass(self, mode, suites):
        with self.lock:
            if (mode.name, suites) not in self.passed and not self.passes(mode, suites):
                os.write(2, f"mutate_kernels.py: {mode.program} --gtest_filter={suites} fails without any mutant "
                            f"({mode.name})\n".encode())
                os._exit(1)
            self.passed.add((mode.name, suites))


def changed_files(commit):
    command = ["git", "diff", "--name-only", commit, "--"]
    return set(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n"))


def run(mutants, args, build, modes, deadline):
    """Who caught each mutant: a mode, "compiler", None for nobody, "not tried"."""
    subprocess.run(["ninja", "-C", build, *{mode.program for mode in modes}, MODULE, "mhmoe_test_kernels"], check=True,
                   stdout=subprocess.DEVNULL)
    clean = Clean(build / "mutants/clean", build, modes)
    scratches = queue.Queue()
    for i in range(min(args.jobs, len(mutants))):
        scratches.put(Scratch(build / f"mutants/{i}", build, modes))

    def try_one(mutant):
        if time.monotonic() > deadline:
            return "not tried"
        scratch = scratches.get()
        try:
            caught = scratch.caught_by(mutant, clean)
        finally:
            scratches.put(scratch)
        print(f"{caught or 'SURVIVED':40} {mutant.file}:{mutant.line}  {mutant.key}", flush=True)
        return caught

    with ThreadPoolExecutor(args.jobs) as pool:
        return dict(zip(mutants, pool.map(try_one, mutants)))


def run_all(mutants, args):
    if not mutants:
        return {}
    deadline = time.monotonic() + 60 * args.minutes
    build = Path(args.build).resolve()
    # Without NCCL's header or MPI there is no program of several ranks.
    modes = [m for m in MODES if args.by in m.name and (not m.ranks or (build / m.program).exists())]
    outcomes = run(mutants, args, build, modes, deadline)
    survivors = [mutant for mutant, caught in outcomes.items() if caught is None]
    if survivors and args.races:
        outcomes |= run(survivors, args, Path(args.races).resolve(), RACE_MODES, deadline)
    return outcomes


def table(outcomes, reasons):
    lines = ["| mutant | caught by |", "| --- | --- |"]
    for mutant, caught in outcomes.items():
        lines.append(f"| `{mutant.key}` | {caught or 'nobody: ' + reasons.get(mutant.key, 'not listed')} |")
    return "\n".join(lines) + "\n"


def problems_of(everything, outcomes, reasons):
    problems = [f"{SURVIVORS.name}: there is no mutant \"{key}\" any more" for key in reasons
                if key not in {m.key for m in everything}]
    for mutant, caught in outcomes.items():
        if caught is None and mutant.key not in reasons:
            problems.append(f"{mutant.file}:{mutant.line}: nobody notices that \"{mutant.key}\" is gone: "
                            f"add a test, or a line to {SURVIVORS.relative_to(ROOT)}")
        # What the race detector sees of lanes that share one of its clocks is a matter of chance.
        if mutant.key in reasons and caught not in (None, "not tried", RACE_MODES[0].name):
            problems.append(f"{SURVIVORS.name}: \"{mutant.key}\" is caught by {caught}: drop the line")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build")
    parser.add_argument("--races", metavar="BUILD", help="a build folder by clang with ThreadSanitizer")
    parser.add_argument("--changed-since", metavar="COMMIT", help="only mutants of files that changed")
    parser.add_argument("--only", default="", metavar="TEXT,TEXT", help="only mutants with one of these in the name")
    parser.add_argument("--by", default="", metavar="TEXT", help="only tests with this in the name of their kind")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", metavar="FILE", help="the outcome as a Markdown table")
    args = parser.parse_args()

    everything, reasons = barriers.all_mutants(), listed_survivors()
    chosen = [m for m in everything if any(text in m.key for text in args.only.split(","))]
    if args.changed_since:
        changed = changed_files(args.changed_since)
        chosen = [m for m in chosen if m.file in changed]
    outcomes = run_all(chosen, args)
    problems = problems_of(everything, outcomes, reasons)
    if args.table:
        Path(args.table).write_text(table(outcomes, reasons))
    tried = [caught for caught in outcomes.values() if caught != "not tried"]
    caught = sum(outcome is not None for outcome in tried)
    print(f"note: {len(everything)} mutants, {len(tried)} of {len(chosen)} chosen tried, {caught} caught, "
          f"{len(tried) - caught} survived ({len(reasons)} listed)")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
