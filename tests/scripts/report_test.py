#!/usr/bin/env python3
"""Tests of scripts/report.py on invented runs. usage: report_test.py MHMOE"""
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEBIANS_PYTHON = "/usr/bin/python3"
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).parent)]

try:
    import matplotlib  # noqa: F401: the pictures need it
except ImportError:
    if Path(DEBIANS_PYTHON).exists() and not os.path.samefile(sys.executable, DEBIANS_PYTHON):
        os.execv(DEBIANS_PYTHON, [DEBIANS_PYTHON, *sys.argv])
    print("skipped: no python3 with matplotlib")
    sys.exit(77)

from report.paper import FIGURES, paper_figures  # noqa: E402
from report.run import Run, read_runs  # noqa: E402
from report.size import count_parameters  # noqa: E402
from report.style import style_of  # noqa: E402
from report.tables import config_differences, final_lines, short  # noqa: E402
from synthetic_runs import five_runs, make_run  # noqa: E402

PROGRAM = None


def run_report(runs, output, *options):
    return subprocess.run([sys.executable, ROOT / "scripts/report.py", *runs, "--output", output, *options],
                          capture_output=True, text=True)


class InFolder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)
        self.output = self.folder / "report"

    def report(self, runs, *options):
        """The page's text; the command must succeed."""
        done = run_report(runs, self.output, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.printed = done.stdout
        return (self.output / "index.html").read_text()

    def refused(self, *runs):
        done = run_report(runs, self.output)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done.stderr


class Reports(InFolder):
    def test_everything_is_drawn_and_the_page_needs_nothing_else(self):
        page = self.report(five_runs(self.folder), "--title", "Five & more")
        for name in ("perplexity_books", "perplexity_news", "load_experts", "load_heads", "different_experts",
                     "experts_active", "throughput"):
            self.assertEqual((self.output / f"{name}.png").read_bytes()[:4], b"\x89PNG", name)
            self.assertIn(f"{name}.png", self.printed)
        self.assertIn("<h1>Five &amp; more</h1>", page)
        self.assertNotIn("{{", page)
        self.assertIn("default-src 'none'", page)
        self.assertEqual(re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:,)[^\"']*", page), [])
        self.assertIn("mhmoe_h3: running at step 300 of 400", page)
        self.assertIn("fine &lt;16&gt;", page)
        for line in self.printed.splitlines()[1:6]:
            self.assertIn(line.split("  ")[0], ("dense", "smoe_8", "mhmoe_h2", "mhmoe_h3", "fine <16>"))
        self.assertEqual((self.output / "summary.md").read_text().count("\n"), 7)

    def test_dense_runs_alone_have_no_routing(self):
        page = self.report([make_run(self.folder, name, steps=200) for name in ("a", "b")])
        self.assertFalse((self.output / "load_experts.png").exists())
        self.assertIn('"balance":[]', page)

    def test_one_run_without_routing_records(self):
        page = self.report([make_run(self.folder, "alone", steps=200, experts=8, routing_every=0)])
        self.assertTrue((self.output / "experts_active.png").exists())
        self.assertFalse((self.output / "load_experts.png").exists())
        self.assertIn("There is one run.", page)

    def test_without_matplotlib_there_is_the_page_and_the_table(self):
        (self.folder / "matplotlib.py").write_text("raise ImportError('not here')\n")
        run = make_run(self.folder, "alone", steps=100)
        done = subprocess.run([sys.executable, ROOT / "scripts/report.py", run, "--output", self.output], capture_output=True,
                              text=True, env=os.environ | {"PYTHONPATH": str(self.folder)})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("note: no pictures", done.stderr)
        self.assertEqual(sorted(path.name for path in self.output.iterdir()), ["index.html", "summary.md"])

    def test_a_run_that_has_only_begun(self):
        run = make_run(self.folder, "young", steps=400, done=20, validate_every=100)
        page = self.report([run])
        self.assertIn("unfinished at step 20 of 400", page)
        self.assertEqual(list(self.output.glob("perplexity_*.png")), [])

    def test_a_line_that_is_being_written_is_left_out(self):
        run = make_run(self.folder, "torn", steps=200)
        whole = Run(run).records
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 201, "tok')
        self.assertEqual(Run(run).records, whole)

    def test_of_steps_done_twice_by_a_resumed_run_the_later_count(self):
        run = make_run(self.folder, "resumed", steps=200)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        again = [line.replace('"seconds": ', '"seconds": 1') for line in lines[5:]]
        (run / "metrics.jsonl").write_text("\n".join(lines + again) + "\n")
        records = Run(run).records
        self.assertEqual([r["step"] for r in records], [json.loads(line)["step"] for line in lines])
        self.assertEqual(records[5], json.loads(again[0]))

    def test_refused_steps_are_no_records_but_are_said(self):
        run = make_run(self.folder, "refusing", steps=100)
        whole = Run(run).records
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 100, "refused": "spike", "loss": 9.5, "grad_norm": null, "refused_in_a_row": 1}\n')
        self.assertEqual(Run(run).records, whole)
        self.assertIn("refusing: 1 step was refused (spike), the last one step 100", self.report([run]))

    def test_runs_of_one_name_are_told_apart(self):
        runs = read_runs([make_run(self.folder / part, "same", steps=100) for part in ("a", "b")])
        self.assertEqual([run.label for run in runs], [f"same ({run.folder})" for run in runs])


class Refusals(InFolder):
    def test_what_is_no_run_is_named(self):
        self.assertIn(f"error: {self.folder}/config.json does not exist", self.refused(self.folder))

    def test_a_run_that_has_recorded_nothing(self):
        run = make_run(self.folder, "empty", steps=100)
        (run / "metrics.jsonl").write_text("")
        self.assertIn("has the run begun?", self.refused(run))

    def test_a_damaged_line_is_named(self):
        run = make_run(self.folder, "damaged", steps=100)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        (run / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:-9]] + lines[2:]) + "\n")
        self.assertIn("metrics.jsonl:2:", self.refused(run))


class Tables(InFolder):
    def test_dropless_has_a_column_only_where_it_differs(self):
        dense, capped = (Run(make_run(self.folder, "dense", steps=100)),
                         Run(make_run(self.folder, "capped", steps=100, experts=8, capacity=1.0)))
        self.assertNotIn("books dropless", final_lines([dense])[0])
        self.assertIn("books dropless", final_lines([dense, capped])[0])

    def test_only_keys_that_differ_are_listed(self):
        runs = [Run(make_run(self.folder, "dense", steps=100)), Run(make_run(self.folder, "moe", steps=100, experts=16))]
        rows = dict(config_differences(runs))
        self.assertEqual(rows["model.moe.every_n_layers"], ["0", "2"])
        self.assertEqual(rows["model.moe.experts"], ["-", "16"])  # of a dense model they mean nothing
        runs.append(Run(make_run(self.folder, "more", steps=100, experts=32)))
        self.assertEqual(dict(config_differences(runs))["model.moe.experts"], ["-", "16", "32"])
        self.assertNotIn("model.moe.top_k", dict(config_differences(runs)))
        self.assertNotIn("train.batch_tokens", rows)
        self.assertNotIn("name", rows)

    def test_numbers_are_short(self):
        self.assertEqual([short(value) for value in (12, 999.7, 1234, 8.456e6, math.nan)], ["12", "1 k", "1.23 k", "8.46 M", "-"])
        self.assertEqual(short(3e6, "#"), "3.00 M")

    def test_no_two_runs_look_alike(self):
        looks = [tuple(style_of(i).values()) for i in range(35)]
        self.assertEqual(len(set(looks)), 35)
        for part in ("colour", "marker", "dash"):
            self.assertEqual(len({style_of(i)[part] for i in range(5)}), 5)


class ShippedConfigurations(InFolder):
    def configs(self):
        """(path, resolved) of all that a run can be made of."""
        for path in sorted((ROOT / "configs").glob("**/*.json")):
            if path.stem != "base" and "members" not in json.loads(path.read_text()):
                printed = subprocess.run([PROGRAM, "config", path], capture_output=True, text=True, check=True).stdout
                yield path, json.loads(printed)

    def test_parameters_are_what_mhmoe_plan_counts(self):
        checked = 0
        for path, config in self.configs():
            if config["model"]["vocab_size"] is None:
                continue
            plan = subprocess.run([PROGRAM, "plan", path], capture_output=True, text=True, check=True).stdout
            total, active = re.search(r"^total +([\d,]+) +([\d,]+)", plan, re.MULTILINE).groups()
            self.assertEqual([f"{count:,.0f}" for count in count_parameters(config["model"])], [total, active], path)
            checked += 1
        self.assertGreater(checked, 5)

    def test_the_papers_figures_belong_to_configurations_that_are_here(self):
        known = {config["name"]: config for _, config in self.configs()}
        self.assertGreater(len(FIGURES), 10)
        for name, entry in FIGURES.items():
            self.assertIn(name, known)
            self.assertLessEqual(set(entry["perplexity"]), {one["name"] for one in known[name]["data"]["validation"]}, name)

    def test_the_papers_figures_stand_beside_ours(self):
        run = Run(make_run(self.folder, "paper2_mhmoe_h3", steps=100, sets=("redpajama", "wiki")))
        self.assertEqual(paper_figures(run)["perplexity"]["wiki"], 9.18)
        header, line = final_lines([run])
        self.assertEqual(line[header.index("redpajama paper")], "10.51")


if __name__ == "__main__":
    PROGRAM = sys.argv[1]
    unittest.main(argv=sys.argv[:1])
