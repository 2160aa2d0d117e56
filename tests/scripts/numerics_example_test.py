#!/usr/bin/env python3
"""Runs the NumPy example of docs/numerics.md against `mhmoe trace`. usage: numerics_example_test.py MHMOE"""
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy as np
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3"] + sys.argv)
    print("skipped: no numpy")
    sys.exit(77)

ROOT = Path(__file__).resolve().parents[2]
VOCAB, WIDTH, HIDDEN, EXPERTS, EXPERT_HIDDEN, HEADS = 48, 16, 24, 4, 12, 2
MODEL = {"vocab_size": VOCAB, "layers": 2, "hidden_size": WIDTH, "attention_heads": 2,
         "ffn": {"activation": "swiglu", "hidden_size": HIDDEN},
         "moe": {"every_n_layers": 2, "experts": EXPERTS, "top_k": 2, "heads": HEADS, "expert_hidden_size": EXPERT_HIDDEN}}


def save(path, tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        kind = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def feed_forward(prefix, width, hidden):
    return {prefix + "gate.weight": (hidden, width), prefix + "up.weight": (hidden, width),
            prefix + "down.weight": (width, hidden)}


def shapes():
    out = {"embed.weight": (VOCAB, WIDTH), "final_norm.weight": (WIDTH,)}
    for p in ("layers.0.", "layers.1."):
        out.update({p + "attention_norm.weight": (WIDTH,), p + "ffn_norm.weight": (WIDTH,)})
        out.update({f"{p}attention.{n}.weight": (WIDTH, WIDTH) for n in ("q", "k", "v", "out")})
    out.update(feed_forward("layers.0.ffn.", WIDTH, HIDDEN))
    out.update({f"layers.1.moe.{n}.{kind}": shape for n in ("head", "merge") for kind, shape in
                (("weight", (WIDTH, WIDTH)), ("bias", (WIDTH,)))})
    out["layers.1.moe.router.weight"] = (EXPERTS, WIDTH // HEADS)
    for expert in range(EXPERTS):
        out.update(feed_forward(f"layers.1.moe.experts.{expert}.", WIDTH // HEADS, EXPERT_HIDDEN))
    return out


def main():
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs/numerics.md").read_text(), re.DOTALL).group(1)
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, weights, tokens, output = (folder / n for n in ("C.json", "W.safetensors", "T.safetensors", "new/O.safetensors"))
        config.write_text(json.dumps({"model": MODEL, "train": {"precision": "fp32"}}))
        save(weights, {n: random.normal(0, 0.5, shape).astype(np.float32) for n, shape in shapes().items()})
        targets = random.integers(0, VOCAB, (2, 9))
        targets[0, 3:5] = -1
        save(tokens, {"tokens": random.integers(0, VOCAB, (2, 9)), "targets": targets})
        subprocess.run([sys.argv[1], "trace", "--config", config, "--weights", weights, "--tokens", tokens,
                        "--output", output], check=True)
        (folder / "example.py").write_text(example)
        run = [sys.executable, folder / "example.py", config, weights, tokens, output]
        if subprocess.run(run).returncode != 0:
            sys.exit("the example and mhmoe trace disagree")
        # The comparison must be able to fail: other weights, another loss.
        save(weights, {n: random.normal(0, 0.5, shape).astype(np.float32) for n, shape in shapes().items()})
        if subprocess.run(run, capture_output=True).returncode == 0:
            sys.exit("the example accepts the loss of other weights")


if __name__ == "__main__":
    main()
