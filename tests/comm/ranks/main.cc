// Runs the same tests on every rank; a failure on one ends the job with 1.
#include <gtest/gtest.h>

#include <cstdio>

#include "comm/job.h"

namespace {

// Of ranks other than 0: their successes would be said four times.
class FailuresAlone final : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", mhmoe::comm::job().rank(), result.file_name(), result.line_number(),
                 result.summary());
  }
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  try {
    mhmoe::comm::job();
    mhmoe::comm::configure_job({.timeout_seconds = 20});
    if (mhmoe::comm::job().rank() != 0) {
      testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new FailuresAlone);
    }
    const int failed = RUN_ALL_TESTS();
    mhmoe::comm::finish_job();
    return failed;
  } catch (...) {
    return static_cast<int>(mhmoe::comm::end_by_exception());
  }
}
