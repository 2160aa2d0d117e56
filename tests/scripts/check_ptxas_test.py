#!/usr/bin/env python3
"""The gate on stack frames and spills finds what is planted in a log of ptxas, and nothing else."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_ptxas.py"

KERNEL = """\
ptxas info    : Compiling entry function 'void mhmoe::cuda::(anonymous namespace)::{name}(float*, long)' for '{arch}'
ptxas info    : Function properties for void mhmoe::cuda::(anonymous namespace)::{name}(float*, long)
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 400 bytes smem, 368 bytes cmem[0]
ptxas info    : Compile time = 12.429 ms
"""


def kernel(name, arch="sm_80", stack=0, stores=0, loads=0):
    return KERNEL.format(name=name, arch=arch, stack=stack, stores=stores, loads=loads)


def both(name, **counts):
    return kernel(name, **counts) + kernel(name, arch="sm_90")


class CheckPtxas(unittest.TestCase):
    def run_on(self, report, allowed="", code=0):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "ptxas.txt").write_text("== some.cu\nptxas info    : 0 bytes gmem\n" + report)
            (Path(folder) / "allowed.txt").write_text("# why\n" + allowed)
            result = subprocess.run(
                [sys.executable, SCRIPT, "ptxas.txt", "allowed.txt", "sm_80", "sm_90"],
                cwd=folder, capture_output=True, text=True)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def test_clean(self):
        output = self.run_on(both("cast_kernel<4, float>") + both("add_kernel"))
        self.assertIn("note: 4 kernels compiled (sm_80, sm_90), at most 40 registers", output)

    def test_every_kind_is_found(self):
        for counts in ({"stack": 128}, {"stores": 4}, {"loads": 8}):
            output = self.run_on(both("good_kernel") + both("bad_kernel<4, float>", **counts), code=1)
            self.assertIn("some.cu: bad_kernel<4, float> on sm_80", output)
            self.assertNotIn("good_kernel on", output)

    def test_allowed_with_a_reason(self):
        bad = both("bad_kernel<4, float>", stack=16)
        self.run_on(bad, "bad_kernel: an array indexed at run time\n")
        self.run_on(bad, "other_kernel: another\n", code=1)
        self.assertIn("expected `KERNEL: reason`", self.run_on(bad, "bad_kernel:\n", code=1))

    def test_stale_permission(self):
        self.assertIn("take its line out", self.run_on(both("good_kernel"), "good_kernel: it did once\n", code=1))

    def test_missing_architecture(self):
        self.assertIn("half_kernel: not compiled for sm_90", self.run_on(kernel("half_kernel"), code=1))

    def test_empty_or_strange_report(self):
        self.assertIn("names no kernel", self.run_on("", code=1))
        self.assertIn("not understood", self.run_on(kernel("odd_kernel").replace("spill loads", "odd"), code=1))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
