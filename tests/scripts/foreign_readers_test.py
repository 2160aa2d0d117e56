#!/usr/bin/env python3
"""TensorBoard and safetensors, from PyPI, read what a run wrote. usage: foreign_readers_test.py MHMOE PACKAGES-FOLDER"""
import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))

from pypi import use_packages  # noqa: E402

PROGRAM = None
CONFIG = {
    "name": "read", "output_dir": "runs",
    "data": {"train": [{"path": "train"}], "validation": [{"name": "docs", "path": "train"}], "tokenizer": "tokenizer.model",
             "sequence_length": 16},
    "model": {"vocab_size": None, "layers": 2, "hidden_size": 16, "attention_heads": 2, "ffn": {"hidden_size": 24},
              "moe": {"every_n_layers": 2, "experts": 6, "top_k": 2, "heads": 2, "expert_hidden_size": 12}},
    "train": {"steps": 6, "batch_tokens": 64, "micro_batch_sequences": 2, "learning_rate": {"warmup_steps": 2}},
    "evaluation": {"every_steps": 3, "tokens": 256},
    "checkpoint": {"every_steps": 3},
    "log": {"every_steps": 1, "routing_every_steps": 2},
}


class ForeignReaders(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.folder = Path(holder.name)
        documents = Path(__file__).resolve().parents[2] / "docs"
        (cls.folder / "text.txt").write_text((documents / "numerics.md").read_text())
        cls.mhmoe("prepare", "--input", "text.txt", "--output", "train", "--tokenizer", "tokenizer.model",
                  "--train-tokenizer", "--vocab-size", "400")
        (cls.folder / "config.json").write_text(json.dumps(CONFIG))
        cls.mhmoe("train", "config.json", "--threads", "1")
        cls.run_folder = cls.folder / "runs/read"

    @classmethod
    def mhmoe(cls, *arguments):
        done = subprocess.run([PROGRAM, *arguments], cwd=cls.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"mhmoe {arguments[0]}: {done.stderr}")
        return done.stdout

    def lines(self, name):
        return [json.loads(line) for line in (self.run_folder / name).read_text().splitlines()]

    def check_events(self):
        """Every number of metrics.jsonl and routing.jsonl, once, as TensorBoard understands it."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util import tensor_util
        self.assertEqual(len(list((self.run_folder / "tensorboard").iterdir())), 1)
        events = EventAccumulator(str(self.run_folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        expected = {}
        for record in self.lines("metrics.jsonl"):
            for name, value in record.items():
                if "/" in name:
                    expected.setdefault(name, []).append((record["step"], numpy.float32(value)))
        self.assertIn("validation/docs/bits_per_byte", expected)
        found = {name: [(event.step, numpy.float32(event.value)) for event in events.Scalars(name)]
                 for name in events.Tags()["scalars"]}
        self.assertEqual(found, expected)
        loads = [(record["step"], record["layers"][0]["load"]) for record in self.lines("routing.jsonl")]
        self.assertEqual([step for step, _ in loads], [1, 2, 4, 6])
        drawn = [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors("moe/load/layer_1")]
        self.assertEqual([(step, bars[:, 2].tolist()) for step, bars in drawn], loads)
        self.assertEqual(events.SummaryMetadata("moe/load/layer_1").plugin_data.plugin_name, "histograms")
        texts = [name for name in events.Tags()["tensors"] if events.SummaryMetadata(name).plugin_data.plugin_name == "text"]
        written = "".join(tensor_util.make_ndarray(events.Tensors(name)[0].tensor_proto)[0].decode() for name in texts)
        self.assertIn('"batch_tokens": 64', written)

    def test_tensorboard_reads_the_events_of_a_run_and_of_a_resumed_one(self):
        self.check_events()
        newest = self.run_folder / "checkpoints/step-00000006"
        for file in newest.iterdir():
            file.unlink()
        newest.rmdir()
        (self.run_folder / "checkpoints/latest").unlink()
        self.mhmoe("train", "config.json", "--threads", "1")
        self.assertTrue(newest.is_dir())
        self.check_events()

    def test_safetensors_reads_checkpoints(self):
        folder = self.run_folder / "checkpoints/step-00000003"
        model, optimizer = (self.read_all(folder / f"{kind}-00001-of-00001.safetensors") for kind in ("model", "optimizer"))
        plan = self.mhmoe("plan", self.run_folder / "config.json")
        total = int(re.search(r"^total +([\d,]+)", plan, re.MULTILINE)[1].replace(",", ""))
        self.assertEqual(sum(tensor.size for tensor in model.values()), total)
        self.assertEqual(model["layers.1.moe.experts.5.gate.weight"].shape, (12, 8))
        self.assertEqual({name.split(".", 1)[1] for name in optimizer}, set(model))
        for tensors in (model, optimizer):
            for name, tensor in tensors.items():
                self.assertTrue(numpy.isfinite(tensor).all(), name)
        self.assertGreater(model["embed.weight"].std(), 0)

    def test_safetensors_reads_an_exported_model(self):
        from safetensors import safe_open
        self.mhmoe("checkpoint", "export", self.run_folder, "model.safetensors")
        exported = self.read_all(self.folder / "model.safetensors")
        saved = self.read_all(self.run_folder / "checkpoints/step-00000006/model-00001-of-00001.safetensors")
        self.assertEqual(exported.keys(), saved.keys())
        for name, tensor in exported.items():
            numpy.testing.assert_array_equal(tensor, saved[name], name)
        with safe_open(self.folder / "model.safetensors", framework="numpy") as file:
            self.assertEqual(json.loads(file.metadata()["config"])["name"], "read")

    def read_all(self, path):
        from safetensors import safe_open
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}


if __name__ == "__main__":
    PROGRAM = str(Path(sys.argv[1]).resolve())
    use_packages(sys.argv[2])
    import numpy
    unittest.main(argv=sys.argv[:1])
