// Every rank must have passed; all but the first say failures only.
#include <cstdio>

#include "ranks.h"

namespace {

using nccl_test::kRanks;
using nccl_test::world_rank;

class Failures : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", world_rank(), result.file_name(), result.line_number(),
                 result.message());
  }
};

}  // namespace

int main(int argc, char** argv) {
  int threads = 0, size = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &threads);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  testing::InitGoogleTest(&argc, argv);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world_rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Failures);
  }
  int failed = size == kRanks ? RUN_ALL_TESTS() : 1;
  if (size != kRanks) std::fprintf(stderr, "test_emulator_nccl: run by %d ranks; it needs %d\n", size, kRanks);
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return failed;
}
