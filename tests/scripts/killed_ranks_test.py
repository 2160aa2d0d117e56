#!/usr/bin/env python3
"""Kills one of four ranks at random moments, again and again: the job ends at once, every checkpoint that is there is
good, and the same command comes to the bytes of a run that was left alone.
usage: killed_ranks_test.py MHMOE [PYPI-FOLDER] [--kills 200] [--seed 1]"""
import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from interrupted_runs import ENVIRONMENT, MPIRUN, end_with_parent, prepare, result, skip

RANKS, STEPS = 4, 40
SETTINGS = ["--set=parallel.expert_parallel_size=2", "--set=train.micro_batch_sequences=1",
            "--set=log.every_steps=10",
            "--set=checkpoint.every_steps=7", "--set=checkpoint.keep_last=2"]
MOST_KILLS = 3      # of one run
ENDS_WITHIN_S = 60  # of a job after the kill, on a machine that does other things too


def start(program, folder, output):
    return subprocess.Popen([*MPIRUN, "-np", str(RANKS), program, "train", "tiny.json", "--threads", "1", "--device",
                             "cpu", "--output-dir", output, *SETTINGS], cwd=folder, env=ENVIRONMENT,
                            stdout=subprocess.DEVNULL, stderr=(folder / "err.txt").open("w"),
                            preexec_fn=end_with_parent)


def pids_of_ranks(launcher):
    """rank -> process of the ranks that mpirun has started."""
    pids = {}
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    try:
        for pid in children.read_text().split():
            for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                    pids[int(variable.split(b"=")[1])] = int(pid)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return pids


def final_bytes(run):
    """SHA-256 of weights and moments: what the files hold behind their headers, which name the run."""
    digest = hashlib.sha256()
    for path in sorted((run / f"checkpoints/step-{STEPS:08}").glob("*.safetensors")):
        data = path.read_bytes()
        digest.update(data[8 + int.from_bytes(data[:8], "little"):])
    return digest.hexdigest(), result(run)[0]


def has_ended(pid):
    """It may be a zombie, which its parent has not looked at yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def end_of(launcher, pids, outcomes):
    """Waits for the job's end, and for a mpirun that hangs when all its ranks have ended no longer than that: Open MPI
    4.1.4 does so now and then (docs/multi_node.md)."""
    begun = time.monotonic()
    while launcher.poll() is None:
        time.sleep(0.05)
        late = time.monotonic() - begun > ENDS_WITHIN_S
        assert not late or all(map(has_ended, pids)), f"ranks live on {ENDS_WITHIN_S} s after one was killed"
        if late:
            launcher.kill()
            launcher.wait()
            outcomes["mpirun hung"] += 1
            return
    outcomes["longest end"] = max(outcomes["longest end"], time.monotonic() - begun)


def kill_one(launcher, rank, after, outcomes):
    """Whether there was still someone to kill; the job must then end."""
    while rank not in pids_of_ranks(launcher) and launcher.poll() is None:
        time.sleep(0.01)
    end = time.monotonic() + after
    while time.monotonic() < end and launcher.poll() is None:
        time.sleep(min(0.01, after))
    pids = pids_of_ranks(launcher)
    try:
        os.kill(pids[rank], signal.SIGKILL)
    except (KeyError, ProcessLookupError):
        launcher.wait()
        return False
    end_of(launcher, pids.values(), outcomes)
    return launcher.returncode != 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("pypi", nargs="?")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if shutil.which("mpirun") is None:
        skip("no mpirun")
    program, chance = os.path.realpath(args.program), random.Random(args.seed)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        prepare(program, folder, STEPS)
        begun = time.monotonic()
        assert start(program, folder, "whole").wait() == 0, (folder / "err.txt").read_text()
        duration = time.monotonic() - begun
        expected = final_bytes(folder / "whole/tiny")
        kills = runs = steps_saved = 0
        outcomes = {"mpirun hung": 0, "longest end": 0}
        while kills < args.kills:
            runs += 1
            output = folder / f"run{runs}"
            planned = min(chance.randint(1, MOST_KILLS), args.kills - kills)
            for _ in range(planned):
                launcher = start(program, folder, output)
                kills += kill_one(launcher, chance.randrange(RANKS), chance.uniform(0.02, duration), outcomes)
                steps_saved += len(list(output.glob("tiny/checkpoints/step-*")))
            if (output / "tiny/checkpoints").exists():
                verify = subprocess.run([program, "checkpoint", "verify", output / "tiny"], capture_output=True, text=True)
                assert verify.returncode in (0, 66), verify.stdout + verify.stderr
            launcher = start(program, folder, output)
            assert launcher.wait() == 0, (folder / "err.txt").read_text()
            found = final_bytes(output / "tiny")
            assert found == expected, f"seed {args.seed}, run {runs}, after {kills} kills: {found}, not {expected}"
            shutil.rmtree(output)
            print(f"{kills} kills, {runs} runs, {time.monotonic() - begun:.0f} s", flush=True)
        print(f"{kills} kills of a random rank in {runs} runs of {RANKS} ranks, seed {args.seed}, {steps_saved} checkpoints "
              f"found after them: all came to SHA-256 {expected[0][:16]}...; the longest end took "
              f"{outcomes['longest end']:.1f} s, mpirun hung {outcomes['mpirun hung']} times, "
              f"{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
