#!/usr/bin/env python3
"""scripts/slurm/train.sbatch on a SLURM of one machine, started here: a run of two ranks that is signalled, and one that
is preempted, go back into the queue and come to the bytes of one that was left alone. usage: slurm_test.py MHMOE"""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from interrupted_runs import (ENVIRONMENT, MPIRUN, RANKS, ROOT, end_with_parent, prepare, result, skip,
                              status, wait_until)

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={second_port}
AuthType=auth/munge
# A job that goes back into the queue waits a second longer than this; less than 5 is refused, and 120 taken.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName={host} NodeAddr=127.0.0.1 CPUs={ranks} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=60 MaxTime=INFINITE State=UP
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""
MUNGE = ["munge/key", "munge/socket", "munge/pid", "munged.log", "munge/seed"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.daemons = []
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir()
        folder.chmod(0o755)  # munged wants its socket to be reached by everyone
        (folder / "munge/key").write_bytes(os.urandom(128))
        (folder / "munge/key").chmod(0o600)
        self.host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(
            folder=folder, host=self.host, port=free_port(), second_port=free_port(), ranks=RANKS))
        self.environment = dict(ENVIRONMENT, SLURM_CONF=str(folder / "slurm.conf"))

    def start(self):
        key, socket_path, pid, log, seed = (self.folder / name for name in MUNGE)
        self.daemon(["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_path}",
                     f"--pid-file={pid}", f"--log-file={log}", f"--seed-file={seed}"])
        wait_until("munged", socket_path.exists, 10)
        for name in ("slurmctld", "slurmd"):
            self.daemon([name, "-D"])
        wait_until("an idle node", lambda: "idle" in self.ask("sinfo", "-h", "-p", "low", "-o", "%t"), 20)

    def daemon(self, command):
        with open(self.folder / f"{command[0]}.out", "w") as output:
            self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=output, stderr=output,
                                                 preexec_fn=end_with_parent))

    def stop(self):
        if len(self.daemons) == 3:
            self.ask("scancel", "--signal=KILL", "--full", "--user=root")
            self.ask("scancel", "--user=root")
            end = time.monotonic() + 20
            while self.ask("squeue", "-h") and time.monotonic() < end:
                time.sleep(0.2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command):
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False).stdout.strip()

    def submit(self, *arguments):
        answer = subprocess.run(["sbatch", "--parsable", f"--ntasks={RANKS}", *arguments], cwd=self.folder, text=True,
                                env=self.environment, capture_output=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def train(self, program, output):
        self.environment |= {"MHMOE_ROOT": str(ROOT), "MHMOE_PROGRAM": str(program), "MHMOE_LAUNCHER": " ".join(MPIRUN)}
        return self.submit(f"--ntasks-per-node={RANKS}", "--cpus-per-task=1", "--gres=none", f"--output={output}.txt",
                           ROOT / "scripts/slurm/train.sbatch", "tiny.json", "--threads", "1", "--output-dir", output)

    def job(self, number):
        return dict(part.split("=", 1) for part in self.ask("scontrol", "show", "job", "-o", number).split() if "=" in part)

    def await_state(self, number, *states):
        wait_until(f"job {number} {states}", lambda: self.job(number).get("JobState") in states, 240)


def finished(cluster, job, output, restarts):
    """What the job wrote; it must complete after so many restarts."""
    try:
        cluster.await_state(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    finally:
        found, text = cluster.job(job), output.read_text() if output.exists() else ""
        if (found.get("JobState"), found.get("Restarts")) != ("COMPLETED", restarts):
            print(found, text, sep="\n", file=sys.stderr)
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", restarts)
    return text


def comes_back(cluster, program, folder, expected, output, disturb):
    """disturb(job) is called while it trains, and returns when the job may start again."""
    job = cluster.train(program, output)
    wait_until("a logged step", lambda: status(folder / output / "tiny").get("step", 0) >= 1)
    disturb(job)
    text = finished(cluster, job, folder / f"{output}.txt", "1")
    assert "start 1," in text and "goes back into the queue" in text and "start 2," in text, text
    assert result(folder / output / "tiny") == expected, f"another model after {output}"


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the daemons are ended
    program = Path(sys.argv[1]).resolve()
    for command in ("sbatch", "slurmctld", "slurmd", "munged", "mpirun"):
        if not shutil.which(command):
            skip(f"no {command} (Debian: slurmctld slurmd slurm-client munge openmpi-bin)")
    if os.getuid() != 0:
        skip("SLURM's daemons are started as root")
    with tempfile.TemporaryDirectory(prefix="mhmoe-slurm-") as name:
        folder = Path(name)
        prepare(program, folder, 2000)  # some seconds: SLURM preempts two after it is asked
        cluster = Cluster(folder)
        try:
            try:
                cluster.start()
            except AssertionError as error:
                logs = [path.read_text()[-500:] for path in (*folder.glob("*.out"), *folder.glob("*.log"))]
                skip(f"SLURM does not start here: {error}\n" + "\n".join(logs))
            whole = cluster.train(program, "whole")
            finished(cluster, whole, folder / "whole.txt", "0")
            expected = result(folder / "whole/tiny")
            comes_back(cluster, program, folder, expected, "signalled",
                       lambda job: cluster.ask("scancel", "--signal=USR1", "--batch", job))
            comes_back(cluster, program, folder, expected, "preempted",
                       lambda _: cluster.submit("--partition=high", "--time=1", "--output=high.txt", "--wrap", "sleep 2"))
            stopped = cluster.train(program, "stopped")
            wait_until("a logged step", lambda: status(folder / "stopped/tiny").get("step", 0) >= 1)
            cluster.ask("scancel", "--signal=TERM", "--batch", stopped)
            cluster.await_state(stopped, "FAILED")
            assert cluster.job(stopped)["ExitCode"] == "75:0" and status(folder / "stopped/tiny")["exit_code"] == 75
        finally:
            cluster.stop()
    print("signalled and preempted jobs went back into the queue and came to the same bytes; SIGTERM ends one for good")


if __name__ == "__main__":
    main()
