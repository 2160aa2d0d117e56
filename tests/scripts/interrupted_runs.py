"""Small runs that are stopped while they train: what launch_test.py and slurm_test.py share."""
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "scripts/launch.sh"
RANKS = 2
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl_vader_single_copy_mechanism", "none"]
CONFIG = {
    "name": "tiny",
    "data": {"train": [{"path": "text"}], "validation": [{"name": "text", "path": "text"}], "tokenizer": "bytes",
             "sequence_length": 16},
    "model": {"layers": 2, "hidden_size": 16, "attention_heads": 2, "ffn": {"hidden_size": 16},
              "moe": {"every_n_layers": 2, "experts": 4, "top_k": 2, "heads": 2, "expert_hidden_size": 16}},
    "train": {"batch_tokens": 64, "micro_batch_sequences": 2, "precision": "fp32",
              "learning_rate": {"peak": 1e-2, "final": 1e-3, "warmup_steps": 2}},
    "evaluation": {"tokens": 100}, "checkpoint": {"every_steps": 0}, "log": {"every_steps": 50},
}
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1")


PR_SET_PDEATHSIG = 1


def end_with_parent():
    """In a child: it gets SIGTERM when the test ends, however that does. Shells start background commands with SIGINT
    ignored, which it would inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def prepare(program, folder, steps):
    CONFIG["train"]["steps"] = CONFIG["evaluation"]["every_steps"] = steps
    (folder / "text.jsonl").write_text("".join(
        json.dumps({"text": f"document {i}: the quick brown fox jumps {i * i} times"}) + "\n" for i in range(60)))
    subprocess.run([program, "prepare", "--input", "text.jsonl", "--output", "text", "--tokenizer", "bytes"], cwd=folder,
                   check=True, capture_output=True)
    (folder / "tiny.json").write_text(json.dumps(CONFIG))


def status(run):
    try:
        return json.loads((run / "status.json").read_text())
    except FileNotFoundError:
        return {}


def result(run):
    """The hash over every step, and that of every tensor, of the last checkpoint."""
    last = CONFIG["train"]["steps"]
    manifest = json.loads((run / f"checkpoints/step-{last:08}/manifest.json").read_text())
    return manifest["state"]["run_hash"], {name: tensor["xxh3"] for name, tensor in manifest["tensors"].items()}


def wait_until(what, happened, seconds=240):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.05)
