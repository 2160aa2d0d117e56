// Every rank must have passed; all but the first say failures only.
#include <cstdio>

#include "cuda/nccl/ranks_test.h"

namespace {

class Failures : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", mhmoe::test::job().rank(), result.file_name(), result.line_number(),
                 result.message());
  }
};

}  // namespace

int main(int argc, char** argv) {
  int threads = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &threads);
  testing::InitGoogleTest(&argc, argv);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  const mhmoe::test::MpiJob& job = mhmoe::test::job();
  if (job.rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Failures);
  }
  if (job.size() != mhmoe::test::kRanks) {
    std::fprintf(stderr, "test_nccl_communicator: run by %d ranks; it needs %d\n", job.size(), mhmoe::test::kRanks);
    MPI_Finalize();
    return 1;
  }
  int failed = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return failed;
}
