#!/usr/bin/env python3
"""scripts/summarize_ctest.py counts cases and says why each one was skipped."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.sax.saxutils import escape

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "summarize_ctest.py"
LACKS = 'this CPU lacks avx512bf16, which the kernels "avx512_bf16" are compiled for'


def summary_of(*cases):
    """The lines for cases (name, state, output)."""
    text = "".join(f'<testcase name="{name}" status="{state}"><system-out>{escape(output)}</system-out></testcase>'
                   for name, state, output in cases)
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(f"<testsuite>{text}</testsuite>")
        file.flush()
        done = subprocess.run([sys.executable, SCRIPT, file.name], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Summary(unittest.TestCase):
    def test_counts(self):
        self.assertEqual(summary_of(("a", "run", LACKS), ("b", "fail", ""), ("c", "notrun", ""), ("d", "run", "")),
                         ["FAILED: b", "skipped: c: no reason given", "2 1 1"])

    def test_reasons(self):
        for output, reason in [
                ("x_test.cc:7: Skipped\nno mpirun here\n[  SKIPPED ] X.Y", "no mpirun here"),
                ("said before\nskipped: no network\n", "no network"),
                # Every case fails alike; some would have been skipped anyway, for another reason.
                (f'y_test.cc:3: Skipped\nskipped: another reason\nunknown file: Failure\nC++ exception with '
                 f'description "MHMOE_CPU_ISA: {LACKS}; take lower ones by --cpu-isa" thrown in the test body.', LACKS),
        ]:
            self.assertEqual(summary_of(("a", "notrun", output)), [f"skipped: a: {reason}", "0 0 1"])


if __name__ == "__main__":
    unittest.main()
