#!/usr/bin/env python3
"""Opens the page of scripts/report.py in headless Chromium and uses its switches. usage: report_page_test.py"""
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).parent)]

from report.page import page  # noqa: E402
from report.run import read_runs  # noqa: E402
from synthetic_runs import five_runs, make_run  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Appended to a copy of the page: does what a person would do, and notes what came of it.
CLICKS = """
<script>
const report = {errors: document.getElementById("errors").textContent};
const press = (name, value) => document.querySelector(`[data-switch="${name}"][data-value="${value}"]`).click();
const title = (id, which) => document.querySelector(`#${id} .${which}-title`).textContent;
const visible = (id) => document.querySelectorAll(`#${id} .curve`).length;
const pressed = () => [...document.querySelectorAll('[data-switch][aria-pressed="true"]')].map((b) => b.dataset.value);
report.before = [title("perplexity", "x"), title("perplexity", "y"), visible("perplexity"), pressed()];
press("x", "seconds"); press("y", "linear"); press("set", "news"); press("capacity", "perplexity_dropless");
report.after = [title("perplexity", "x"), title("perplexity", "y"), location.hash, pressed()];
report.caption = document.getElementById("perplexity-caption").textContent;
press("x", "flops");
report.flops = title("health", "x");
document.querySelector('.legend button[data-run="dense"]').click();
report.withoutDense = visible("perplexity");
document.querySelector('.legend button[data-run="dense"]').click();
report.withDense = visible("perplexity");
const cells = () => [...document.querySelectorAll("#load-maps rect")].map((r) => r.getAttribute("fill")).join();
const lastCells = cells(), slider = document.getElementById("step");
slider.value = 0; slider.dispatchEvent(new Event("input"));
report.first = [document.getElementById("step-output").textContent, cells() !== lastCells];
press("step", slider.max);
report.backAgain = cells() === lastCells;
report.cells = document.querySelectorAll("#load-maps rect").length;
const headRows = () => document.querySelectorAll("#head-maps svg text[text-anchor=end]").length;
report.headRows = [headRows()];
press("layer", "3");
report.headRows.push(headRows());
report.tokens = [...document.querySelectorAll("#different-bars rect")].reduce((sum, r) => sum + Number(r.dataset.tokens), 0);
press("balance", "different_experts");
report.balance = [title("balance", "y"), visible("balance")];
const catcher = document.querySelector("#perplexity .catcher"), box = catcher.getBoundingClientRect();
catcher.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right - 2, clientY: box.top + 50}));
report.tip = [document.getElementById("tip").hidden, document.getElementById("tip").textContent];
catcher.dispatchEvent(new PointerEvent("pointerleave"));
report.tipAfter = document.getElementById("tip").hidden;
report.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
report.finalErrors = document.getElementById("errors").textContent;
const out = document.createElement("pre");
out.id = "outcome"; out.textContent = JSON.stringify(report);
document.body.append(out);
</script>
"""


def open_page(folder, text, address="", width=1440):
    """The document after its scripts have run; fails on anything that the console says."""
    (folder / "index.html").write_text(text)
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
                           "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'browser'}",
                           f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom",
                           f"file://{folder}/index.html{address}"], capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    if done.returncode != 0 or said or "</html>" not in done.stdout:
        raise AssertionError(f"the page did not open cleanly: exit code {done.returncode}, console {said}")
    return done.stdout


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.folder = Path(holder.name)
        cls.text = page(read_runs(five_runs(cls.folder)), "Five runs", "steps")
        cls.clicked = cls.outcome(1440)

    @classmethod
    def outcome(cls, width):
        document = open_page(cls.folder, cls.text.replace("</body>", CLICKS + "</body>"), width=width)
        text = re.search(r'<pre id="outcome">(.*?)</pre>', document, re.DOTALL)
        if text is None:
            raise AssertionError("the script that clicks did not reach its end")
        return json.loads(html.unescape(text[1]))

    def test_the_switches_work(self):
        found = self.clicked
        self.assertEqual([found["errors"], found["finalErrors"]], ["", ""])
        self.assertEqual(found["before"][:3], ["training steps", "perplexity (logarithmic)", 5])
        for value in ("books", "steps", "log", "all", "perplexity"):
            self.assertIn(value, found["before"][3])
        self.assertEqual(found["after"][:2], ["minutes of training", "perplexity"])
        for setting in ("x=seconds", "y=linear", "set=news", "capacity=perplexity_dropless"):
            self.assertIn(setting, found["after"][2])
        for value in ("news", "seconds", "linear", "perplexity_dropless"):
            self.assertIn(value, found["after"][3])
        self.assertIn("Perplexity on news, held-out text, no choice dropped. Lower is better.", found["caption"])
        self.assertIn("Lowest at its end: mhmoe_h2", found["caption"])
        self.assertEqual(found["flops"], "training FLOPs")
        self.assertEqual([found["withoutDense"], found["withDense"]], [4, 5])

    def test_the_slider_moves_the_heat_maps(self):
        found = self.clicked
        self.assertEqual(found["first"], ["1", True])
        self.assertTrue(found["backAgain"])
        self.assertEqual(found["cells"], 6 * (8 + 24 + 32 + 16))
        self.assertEqual(found["headRows"], [6 * (2 + 3) + 2, 2 + 3 + 2])  # with the word "expert" under each map
        self.assertEqual(found["tokens"], 3 * 160 * 50)  # one layer of three runs
        self.assertEqual(found["balance"], ["different experts a token", 3])

    def test_values_under_the_pointer_best_first(self):
        found = self.clicked
        self.assertFalse(found["tip"][0])
        self.assertTrue(found["tipAfter"])
        self.assertRegex(found["tip"][1], r"^step 400 .*FLOPs.*mhmoe_h2.*smoe_8.*dense")
        self.assertNotIn("mhmoe_h3", found["tip"][1])  # it has not come so far

    def test_nothing_sticks_out_of_a_narrow_window(self):
        self.assertEqual(self.outcome(600)["overflow"], 0)

    def test_the_address_holds_the_state(self):
        document = open_page(self.folder, self.text, "#x=flops&y=linear&set=training&nonsense=1&part=unknown")
        self.assertIn("Perplexity of the text trained on", document)
        self.assertRegex(document, r'class="axis x-title"[^>]*>training FLOPs<')
        self.assertRegex(document, r'class="axis y-title"[^>]*>perplexity<')

    def test_pages_of_few_runs_open(self):
        for name, options in (("alone", {}), ("bare", {"experts": 8, "routing_every": 0}), ("young", {"done": 1}),
                              ("once", {"experts": 8, "heads": 2, "routing_every": 1000})):
            with self.subTest(name):
                document = open_page(self.folder, page(read_runs([make_run(self.folder, name, steps=200, **options)]), name, "tokens"))
                self.assertRegex(document, r'<p class="note" id="errors" hidden="">')


if __name__ == "__main__":
    if not CHROMIUM:
        print("skipped: no chromium")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
