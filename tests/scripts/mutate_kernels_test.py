#!/usr/bin/env python3
"""scripts/mutate_kernels.py finds every barrier and wait, names it by what stays when lines move, and deletes one."""
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.dont_write_bytecode = True
import barriers  # noqa: E402
import mutate_kernels  # noqa: E402

SOURCE = """// __syncthreads(); in a comment is none
template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    first_kernel(float* out) {
  cp_async_commit();
  for (int i = 0; i < 2; ++i) __syncthreads();  // one statement
  other(out);
  cp_async_wait<kStages - 2>();
  __syncthreads();
}

void second(Context& ctx) {
  MHMOE_CUDA_CHECK(cudaStreamWaitEvent(stream_,
                                       event_, 0));
}
class Owner {
  void synchronize() override { MHMOE_CUDA_CHECK(cudaStreamSynchronize(stream_)); }
  void upload() override {
    synchronize();
    other.synchronize();
  }
};
void Owner::release() {
  for (const cudaError_t code : {cudaStreamSynchronize(stream_), cudaFreeHost(memory_)}) report(code);
}
Scope::~Scope() {
  ctx_.wait(Stream::kCompute, ctx_.mark(Stream::kCommunication));
}
void look() {
  peers_.check();
  check();
}
"""


class Mutants(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = mock.patch.object(barriers, "ROOT", Path(folder.name))
        root.start()
        self.addCleanup(root.stop)
        self.path = Path(folder.name, "x.cu")
        self.path.write_text(SOURCE)
        self.mutants = barriers.mutants_of(self.path)

    def test_every_statement_is_found_and_named(self):
        self.assertEqual([m.key for m in self.mutants], [
            "x.cu first_kernel cp_async_commit(); #1",
            "x.cu first_kernel __syncthreads(); #1",
            "x.cu first_kernel cp_async_wait<kStages - 2>(); #1",
            "x.cu first_kernel cp_async_wait<kStages - 2>(); #1 weakened",
            "x.cu first_kernel __syncthreads(); #2",
            "x.cu second MHMOE_CUDA_CHECK(cudaStreamWaitEvent(stream_, event_, 0)); #1",
            "x.cu synchronize MHMOE_CUDA_CHECK(cudaStreamSynchronize(stream_)); #1",
            "x.cu upload synchronize(); #1",
            "x.cu release cudaStreamSynchronize(stream_) #1",
            "x.cu Scope ctx_.wait(Stream::kCompute, ctx_.mark(Stream::kCommunication)); #1",
            "x.cu look peers_.check(); #1",
            "x.cu look check(); #1",
        ])

    def test_one_statement_is_deleted_and_nothing_else(self):
        by_key = {m.key: m.text for m in self.mutants}
        self.assertEqual(by_key["x.cu first_kernel __syncthreads(); #1"],
                         SOURCE.replace("++i) __syncthreads();", "++i) ;"))
        self.assertEqual(by_key["x.cu first_kernel cp_async_wait<kStages - 2>(); #1 weakened"],
                         SOURCE.replace("kStages - 2>", "kStages - 2 + 1>"))
        self.assertEqual(by_key["x.cu release cudaStreamSynchronize(stream_) #1"],
                         SOURCE.replace("cudaStreamSynchronize(stream_), ", ""))

    def test_names_stay_when_lines_move(self):
        self.path.write_text("\n\n" + SOURCE)
        moved = barriers.mutants_of(self.path)
        self.assertEqual([m.key for m in moved], [m.key for m in self.mutants])
        self.assertEqual([m.line for m in moved], [m.line + 2 for m in self.mutants])


class Verdict(unittest.TestCase):
    MUTANTS = [barriers.Mutant("x.cu", key, 1, "") for key in ("a", "b")]

    def problems(self, outcomes, reasons):
        return mutate_kernels.problems_of(self.MUTANTS, dict(zip(self.MUTANTS, outcomes)), reasons)

    def test_a_survivor_must_be_listed(self):
        self.assertEqual(self.problems(["own tests", None], {"b": "why"}), [])
        self.assertIn('nobody notices that "b" is gone', self.problems(["own tests", None], {})[0])

    def test_the_list_holds_survivors_only(self):
        self.assertIn('"b" is caught by own tests', self.problems([None, "own tests"], {"a": "why", "b": "why"})[0])
        self.assertIn('no mutant "c"', self.problems(["own tests", "not tried"], {"c": "why"})[0])
        self.assertEqual(self.problems(["own tests", "not tried"], {"b": "why"}), [])


if __name__ == "__main__":
    unittest.main()
