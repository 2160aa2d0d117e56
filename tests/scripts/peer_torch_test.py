#!/usr/bin/env python3
"""PyTorch's models of the peer benchmark have mhmoe's losses and gradients. usage: peer_torch_test.py MHMOE [FOLDER]

Nothing is installed for it: it runs where scripts/bench_peers.sh has made build/peers/venv, or python3 has torch."""
import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = PYTHON = None
SMALL = ("model.layers=2", "model.vocab_size=300", "model.hidden_size=96", "model.attention_heads=4",
         "model.ffn.hidden_size=64", "data.sequence_length=32", "train.batch_tokens=128")


def find_python():
    installed = ROOT / "build/peers/venv/bin/python"
    if (ROOT / "build/peers/venv/.complete").exists():
        return str(installed)
    if importlib.util.find_spec("torch") and importlib.util.find_spec("safetensors"):
        return sys.executable
    print("skipped: no PyTorch: scripts/bench_peers.sh installs it into build/peers/venv (5 GB)")
    sys.exit(77)


class PeerTorch(unittest.TestCase):
    def check(self, name, *more, variants=()):
        overrides = [word for pair in (*SMALL, *more) for word in ("--set", pair)]
        return subprocess.run([PYTHON, ROOT / "tests/bench/peer_torch.py", "check", ROOT / f"configs/bench/{name}.json",
                               "--mhmoe", PROGRAM, *overrides, *(("--variants", *variants) if variants else ())],
                              capture_output=True, text=True, timeout=250)

    def assert_equal_models(self, *arguments, **named):
        done = self.check(*arguments, **named)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_dense_models_are_equal(self):
        self.assert_equal_models("dense", variants=("sorted",))
        self.assert_equal_models("gpt2_124m", variants=("sorted",))

    def test_models_with_experts_are_equal_in_every_form(self):
        self.assert_equal_models("smoe_8", "model.moe.expert_hidden_size=40", variants=("sorted",))
        self.assert_equal_models("mhmoe_h3", "model.moe.expert_hidden_size=40")

    def test_what_pytorchs_models_lack_is_refused(self):
        done = self.check("mhmoe_h2", "model.moe.capacity_factor=1.5")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^error: \S+mhmoe_h2.json: model.moe.capacity_factor is 1.5, [^\n]+ only null\n$")


if __name__ == "__main__":
    PROGRAM, PYTHON = str(Path(sys.argv[1]).resolve()), find_python()
    unittest.main(argv=sys.argv[:1])
