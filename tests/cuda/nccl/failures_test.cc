// Planted mistakes and lost ranks: each ends with a message, on every rank that is still there, and none waits for
// ever.
#include <algorithm>
#include <chrono>
#include <thread>

#include "cuda/nccl/ranks_test.h"

namespace mhmoe {
namespace {

using test::WithVariable;

constexpr int kLost = 3;  // the rank that does not come

// How a piece of work ended.
struct End {
  std::string message;
  ExitCode code = ExitCode::kOk;  // kInternal also for what the emulator throws
  double seconds = 0;
};

class NcclFailures : public test::RanksTest {
 protected:
  static End end_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    End end;
    try {
      work();
    } catch (const Error& error) {
      end = {error.what(), error.code()};
    } catch (const std::exception& fault) {
      end = {fault.what(), ExitCode::kInternal};
    }
    end.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return end;
  }

  Tensor numbers() { return uploaded(std::vector<float>(64, static_cast<float>(rank_ + 1))); }

  // Reduces, with the steps between as given, in eight orders on every rank. Returns how often a rank got a wrong sum.
  int64_t wrong_sums(bool waits_before_read, bool waits_before_write) {
    int64_t wrong = 0;
    for (int seed = 1; seed <= 8; ++seed) {
      const Tensor values = numbers(), result = numbers(), seven = uploaded(std::vector<float>(64, 7));
      const WithVariable streams("EMULATOR_STREAMS", test::deferred(seed));
      const Transfer transfer = world_->all_reduce_sum(values, "gradients");
      if (waits_before_read) world_->wait(transfer);
      ctx_->copy(result, values);
      if (!waits_before_write) ctx_->copy(values, seven);
      ctx_->synchronize();
      const auto sums = downloaded<float>(waits_before_write ? result : values);
      const float expected = waits_before_write ? 10 : 7;
      wrong += std::ranges::count(sums, expected) == 64 ? 0 : 1;
    }
    test::job().sum({&wrong, 1});
    return wrong;
  }

  // Rank kLost skips a collective, the others do not.
  End skipped_by_one(const Tensor& values) {
    return end_of([&] {
      if (rank_ != kLost) world_->wait(world_->all_reduce_sum(values, "bucket 2"));
      ctx_->synchronize();
    });
  }
};

TEST_F(NcclFailures, AResultReadBeforeWaitIsWrongInSomeOrder) {
  EXPECT_EQ(wrong_sums(true, true), 0);
  EXPECT_GT(wrong_sums(false, true), 0);
}

TEST_F(NcclFailures, ATensorWrittenBeforeWaitIsWrongInSomeOrder) {
  EXPECT_EQ(wrong_sums(true, false), 0);
  EXPECT_GT(wrong_sums(false, false), 0);
}

TEST_F(NcclFailures, AnotherOrderOfCollectivesIsNamed) {
  const WithVariable seconds("EMULATOR_NCCL_SECONDS", "1");
  for (const bool late : {false, true}) {
    const auto communicator = group({0, 1, 2, 3});
    const Tensor values = numbers(), all = uploaded(std::vector<float>(256));
    const WithVariable streams("EMULATOR_STREAMS", late ? test::deferred(5) : "eager");
    const End end = end_of([&] {
      const auto reduce = [&] { communicator->wait(communicator->all_reduce_sum(values, "norm")); };
      if (rank_ != 1) reduce();
      communicator->wait(communicator->all_gather(all, values, "weights"));
      if (rank_ == 1) reduce();
      ctx_->synchronize();
    });
    EXPECT_EQ(end.code, ExitCode::kInternal);
    EXPECT_NE(end.message.find("all_reduce of 64 f32"), std::string::npos) << end.message;
    EXPECT_NE(end.message.find("all_gather of 64 f32"), std::string::npos) << end.message;
    EXPECT_LT(end.seconds, 3);
    MPI_Barrier(MPI_COMM_WORLD);
  }
}

TEST_F(NcclFailures, RowsThatOneSendsAndNobodyExpectsAreNamed) {
  const WithVariable seconds("EMULATOR_NCCL_SECONDS", "1");
  const Tensor in = uploaded(std::vector<float>(64), 4), out = uploaded(std::vector<float>(64), 4);
  const std::vector<int64_t> begin = {0, 4, 8, 12}, rows = {2, 2, 2, 2};
  std::vector<int64_t> sent = rows;
  if (rank_ == 1) sent[2] = 3;
  const End end = end_of([&] {
    world_->wait(world_->all_to_all_rows({out, in, begin, sent, begin, rows}, "dispatch"));
    ctx_->synchronize();
  });
  if (rank_ != 1 && rank_ != 2) return;
  EXPECT_EQ(end.code, ExitCode::kInternal);
  EXPECT_NE(end.message.find("send of 12 f32"), std::string::npos) << end.message;
  EXPECT_NE(end.message.find("receive of 8 f32"), std::string::npos) << end.message;
}

TEST_F(NcclFailures, ARankThatSkipsOneIsNamed) {
  const WithVariable seconds("EMULATOR_NCCL_SECONDS", "0.5");
  for (const bool late : {false, true}) {
    world_ = nullptr;
    world_ = group({0, 1, 2, 3});
    const Tensor values = numbers();
    const WithVariable streams("EMULATOR_STREAMS", late ? test::deferred(6) : "eager");
    const End end = skipped_by_one(values);
    EXPECT_LT(end.seconds, 3);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank_ == kLost) continue;
    EXPECT_EQ(end.code, ExitCode::kInternal);
    EXPECT_NE(end.message.find("for rank 3"), std::string::npos) << end.message;
  }
}

// As where a connection breaks: NCCL says so while the device still waits.
TEST_F(NcclFailures, AnAsynchronousErrorIsALostPeer) {
  const WithVariable seconds("EMULATOR_NCCL_SECONDS", "0.5"), late_is_error("EMULATOR_NCCL_LATE", "error");
  for (const bool late : {false, true}) {
    world_ = nullptr;
    world_ = group({0, 1, 2, 3});
    const Tensor values = numbers();
    const WithVariable streams("EMULATOR_STREAMS", late ? test::deferred(8) : "eager");
    world_->wait(world_->all_reduce_sum(uploaded(std::vector<float>(8)), "bucket 1"));
    const End end = skipped_by_one(values);
    EXPECT_LT(end.seconds, 3);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank_ == kLost) continue;
    EXPECT_EQ(end.code, ExitCode::kPeerLost);
    EXPECT_NE(end.message.find("remote process exited"), std::string::npos) << end.message;
    EXPECT_NE(end.message.find("all_reduce (bucket 2)"), std::string::npos) << end.message;
    EXPECT_EQ(end_of([&] { world_->all_reduce_sum(values, "more"); }).code, ExitCode::kPeerLost);
  }
}

TEST_F(NcclFailures, AnAsynchronousErrorInRecordedWorkIsALostPeer) {
  const WithVariable seconds("EMULATOR_NCCL_SECONDS", "0.5"), late_is_error("EMULATOR_NCCL_LATE", "error");
  const Tensor values = numbers();
  const auto work = [&] { world_->wait(world_->all_reduce_sum(values, "bucket 2")); };
  work();
  ctx_->synchronize();
  const auto recorded = ctx_->record(work);
  const End end = end_of([&] {
    if (rank_ != kLost) recorded->replay();
    ctx_->synchronize();
  });
  EXPECT_EQ(end.code, rank_ == kLost ? ExitCode::kOk : ExitCode::kPeerLost) << end.message;
  EXPECT_LT(end.seconds, 3);
}

// The watchdog's thread gives the communicators up while the host waits: in the call itself, or for the device.
TEST_F(NcclFailures, TheWatchdogEndsTheWait) {
  for (const bool late : {false, true}) {
    world_ = nullptr;
    world_ = group({0, 1, 2, 3});
    const Tensor values = numbers();
    const WithVariable streams("EMULATOR_STREAMS", late ? test::deferred(9) : "eager");
    std::thread watchdog([this] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      if (rank_ != kLost) test::job().monitor().time_out();
    });
    const End end = skipped_by_one(values);
    watchdog.join();
    EXPECT_LT(end.seconds, 3);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank_ == kLost) continue;
    EXPECT_EQ(end.code, ExitCode::kPeerLost);
    EXPECT_NE(end.message.find("given up"), std::string::npos) << end.message;
  }
}

// What was queued for other ranks must not keep a rank that failed.
TEST_F(NcclFailures, ARankThatThrowsDoesNotWaitForTheOthers) {
  const WithVariable streams("EMULATOR_STREAMS", test::deferred(2));
  const Tensor values = numbers();
  const End end = end_of([&] {
    const auto communicator = group({0, 1, 2, 3});
    if (rank_ == 0) {
      communicator->all_reduce_sum(values, "loss");
      fail(ExitCode::kNumeric, "the loss is no number");
    }
  });
  EXPECT_EQ(end.code, rank_ == 0 ? ExitCode::kNumeric : ExitCode::kOk) << end.message;
  EXPECT_LT(end.seconds, 3);
}

TEST_F(NcclFailures, DifferentDevicesAreListed) {
  std::unique_ptr<WithVariable> other;
  if (rank_ == 2) other = std::make_unique<WithVariable>("EMULATOR_FAIL", "capability:9.0");
  const End end = end_of([&] { group({0, 1, 2, 3}); });
  EXPECT_EQ(end.code, ExitCode::kDevice);
  EXPECT_NE(end.message.find("ranks 0-1, 3: emulated (8.0)"), std::string::npos) << end.message;
  EXPECT_NE(end.message.find("ranks 2: emulated (9.0)"), std::string::npos) << end.message;
}

TEST_F(NcclFailures, RanksThatMeanDifferentGroupsAreToldSo) {
  const End end = end_of([&] { rank_ == 0 ? group({0, 1}) : group({0, 1, 2, 3}); });
  EXPECT_EQ(end.code, ExitCode::kInternal);
  EXPECT_NE(end.message.find("one of 0 1"), rank_ == 0 ? 0 : std::string::npos) << end.message;
}

TEST_F(NcclFailures, ShapesThatDoNotFitAreRefusedOnEveryRank) {
  const Tensor five = uploaded(std::vector<float>(5)), four = uploaded(std::vector<float>(4));
  const Tensor halves = uploaded(std::vector<bfloat16>(4));
  EXPECT_THROW(world_->all_to_all(five, five, "test"), Error);
  EXPECT_THROW(world_->all_gather(five, four, "test"), Error);
  EXPECT_THROW(world_->reduce_scatter_sum(four, four, "test"), Error);
  EXPECT_THROW(world_->all_reduce_sum(halves, "test"), Error);
  EXPECT_THROW(world_->all_to_all(halves, four, "test"), Error);
  EXPECT_THROW(world_->wait({}), Error) << "nothing was started";
}

}  // namespace
}  // namespace mhmoe
