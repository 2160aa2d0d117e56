#!/usr/bin/env python3
"""Every request to stop that scripts/launch.sh gets ends a run of two ranks saved, with 75, and the run goes on to the
bytes of one that was left alone. usage: launch_test.py MHMOE"""
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interrupted_runs import (ENVIRONMENT, LAUNCH, MPIRUN, RANKS, end_with_parent, prepare, result, skip,
                              status, wait_until)


def start(program, folder, output):
    return subprocess.Popen([LAUNCH, *MPIRUN, "-np", str(RANKS), program, "train", "tiny.json", "--threads", "1",
                             "--output-dir", output], cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, preexec_fn=end_with_parent)


def end(process, code):
    output = process.communicate(timeout=120)[0]
    assert process.returncode == code, (process.returncode, output)
    return output


def training(folder, output):
    return lambda: status(folder / output / "tiny").get("step", 0) >= 1


def stopped_by(program, folder, expected, number):
    output = number.name
    process = start(program, folder, output)
    wait_until("a logged step", training(folder, output))
    process.send_signal(number)
    text = end(process, 75)
    found = status(folder / output / "tiny")
    assert (found["state"], found["exit_code"]) == ("stopped", 75), (found, text)
    end(start(program, folder, output), 0)
    assert result(folder / output / "tiny") == expected, f"another model after {output}"


def asked_while_starting(program, folder, expected):
    """mpirun dies of an early signal, or loses it: asked again, the run stops all the same."""
    for delay in (0.01, 0.05, 0.1, 0.2):
        output = f"early_{delay}"
        process = start(program, folder, output)
        time.sleep(delay)
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=120)
        assert process.returncode in (0, 75), (delay, process.returncode)  # 0: finished before it was asked again
        end(start(program, folder, output), 0)
        assert result(folder / output / "tiny") == expected, f"another model after {output}"


def asked_twice(program, folder):
    process = start(program, folder, "twice")
    wait_until("a logged step", training(folder, "twice"))
    subprocess.run(["kill", "-STOP", *ranks_of(process.pid)], check=True)  # a save that takes for ever
    process.send_signal(signal.SIGTERM)
    time.sleep(0.7)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    text = end(process, 1)
    assert time.monotonic() - asked < 10, text


def ranks_of(launcher):
    """The processes under mpirun under the script."""
    mpirun = subprocess.run(["pgrep", "-P", str(launcher), "-x", "mpirun"], capture_output=True, text=True,
                            check=True).stdout.split()
    return subprocess.run(["pgrep", "-P", ",".join(mpirun)], capture_output=True, text=True, check=True).stdout.split()


HANGING = """
import os, sys, time
for _ in range(2):
    if os.fork() == 0: os._exit(0)
time.sleep(600)  # and never waits for them
"""


def launcher_that_hangs():
    begun = time.monotonic()
    done = subprocess.run([LAUNCH, sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=240)
    assert done.returncode == 137 and "hangs though all that it started has ended" in done.stderr, done
    assert time.monotonic() - begun > 25, "too soon to be sure"


def plain_commands():
    for code in (0, 3, 75):
        assert subprocess.run([LAUNCH, "bash", "-c", f"exit {code}"], check=False).returncode == code
    assert subprocess.run([LAUNCH], capture_output=True, check=False).returncode == 64


def main():
    program = Path(sys.argv[1]).resolve()
    plain_commands()
    launcher_that_hangs()
    if not shutil.which("mpirun"):
        skip("no mpirun")
    with tempfile.TemporaryDirectory(prefix="mhmoe-launch-") as name:
        folder = Path(name)
        prepare(program, folder, 300)
        end(start(program, folder, "whole"), 0)
        expected = result(folder / "whole/tiny")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            stopped_by(program, folder, expected, number)
        asked_while_starting(program, folder, expected)
        asked_twice(program, folder)
    print("each signal: saved, 75, the same bytes; early ones too; the second SIGTERM ends at once")


if __name__ == "__main__":
    main()
