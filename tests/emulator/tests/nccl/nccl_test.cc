// The emulated NCCL's calls.
#include <algorithm>
#include <chrono>
#include <thread>

#include "ranks.h"

namespace {

using nccl_test::Floats;
using nccl_test::kRanks;
using nccl_test::Nccl;
using nccl_test::shared_id;

TEST_F(Nccl, KnowsRanks) {
  int size = 0, rank = -1, version = 0;
  EXPECT_EQ(ncclCommCount(comm_, &size), ncclSuccess);
  EXPECT_EQ(ncclCommUserRank(comm_, &rank), ncclSuccess);
  EXPECT_EQ(ncclGetVersion(&version), ncclSuccess);
  EXPECT_EQ(size, kRanks);
  EXPECT_EQ(rank, rank_);
  EXPECT_EQ(version, NCCL_VERSION_CODE);
}

TEST_F(Nccl, AllReduceAlsoInPlaceAndOfNothing) {
  for (const size_t count : {0, 1, 5000}) {
    const Floats in = numbered(count);
    Floats sum(count), maximum = in, average(count);
    ASSERT_EQ(ncclAllReduce(in.data(), sum.data(), count, ncclFloat32, ncclSum, comm_, nullptr), ncclSuccess);
    ASSERT_EQ(ncclAllReduce(maximum.data(), maximum.data(), count, ncclFloat32, ncclMax, comm_, nullptr), ncclSuccess);
    ASSERT_EQ(ncclAllReduce(in.data(), average.data(), count, ncclFloat32, ncclAvg, comm_, nullptr), ncclSuccess);
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(sum[i], static_cast<float>(6000 + 4 * i));
      ASSERT_EQ(maximum[i], static_cast<float>(3000 + i));
      ASSERT_EQ(average[i], static_cast<float>(1500 + i));
    }
  }
}

TEST_F(Nccl, ReducesOtherTypesAndRoundsEveryStep) {
  int32_t whole = rank_ + 1;
  ASSERT_EQ(ncclAllReduce(&whole, &whole, 1, ncclInt32, ncclProd, comm_, nullptr), ncclSuccess);
  EXPECT_EQ(whole, 24);
  uint16_t half = rank_ == 0 ? 0x4380 : 0x3f80;  // 256 and ones, which 256 in bf16 does not see one by one
  ASSERT_EQ(ncclAllReduce(&half, &half, 1, ncclBfloat16, ncclSum, comm_, nullptr), ncclSuccess);
  EXPECT_EQ(half, 0x4380);
}

TEST_F(Nccl, CollectivesMoveBlocks) {
  const size_t count = 3;
  const Floats in = numbered(count * kRanks), own(in.begin(), in.begin() + count);
  Floats gathered(count * kRanks), exchanged(count * kRanks), scattered(count), part(count), collected(count * kRanks);
  ASSERT_EQ(ncclAllGather(own.data(), gathered.data(), count, ncclFloat32, comm_, nullptr), ncclSuccess);
  ASSERT_EQ(ncclAlltoAll(in.data(), exchanged.data(), count, ncclFloat32, comm_, nullptr), ncclSuccess);
  ASSERT_EQ(ncclReduceScatter(in.data(), scattered.data(), count, ncclFloat32, ncclSum, comm_, nullptr), ncclSuccess);
  ASSERT_EQ(ncclScatter(in.data(), part.data(), count, ncclFloat32, 1, comm_, nullptr), ncclSuccess);
  ASSERT_EQ(ncclGather(own.data(), collected.data(), count, ncclFloat32, 2, comm_, nullptr), ncclSuccess);
  for (size_t i = 0; i < count; ++i) {
    const float mine = static_cast<float>(static_cast<size_t>(rank_) * count + i);
    for (size_t r = 0; r < kRanks; ++r) {
      EXPECT_EQ(gathered[r * count + i], static_cast<float>(1000 * r + i));
      EXPECT_EQ(exchanged[r * count + i], static_cast<float>(1000 * r) + mine);
      EXPECT_EQ(collected[r * count + i], rank_ == 2 ? static_cast<float>(1000 * r + i) : 0);
    }
    EXPECT_EQ(scattered[i], 6000 + 4 * mine);
    EXPECT_EQ(part[i], 1000 + mine);
  }
}

TEST_F(Nccl, RootsGiveAndTake) {
  Floats values = numbered(7), sum(7);
  ASSERT_EQ(ncclReduce(values.data(), sum.data(), 7, ncclFloat32, ncclSum, 3, comm_, nullptr), ncclSuccess);
  EXPECT_EQ(sum[2], rank_ == 3 ? 6008 : 0);
  ASSERT_EQ(ncclBcast(values.data(), 7, ncclFloat32, 2, comm_, nullptr), ncclSuccess);
  EXPECT_EQ(values[6], 2006);
}

// Rank r sends r + p + 1 elements to rank p, itself included.
TEST_F(Nccl, GroupedMessagesOfUnequalSizes) {
  const Floats in = numbered(100);
  std::vector<Floats> out(kRanks);
  ASSERT_EQ(ncclGroupStart(), ncclSuccess);
  for (int p = 0; p < kRanks; ++p) {
    const size_t count = static_cast<size_t>(rank_ + p + 1);
    out[static_cast<size_t>(p)].resize(count);
    ASSERT_EQ(ncclSend(in.data() + p, count, ncclFloat32, p, comm_, nullptr), ncclSuccess);
    ASSERT_EQ(ncclRecv(out[static_cast<size_t>(p)].data(), count, ncclFloat32, p, comm_, nullptr), ncclSuccess);
  }
  EXPECT_EQ(out[0][0], 0) << "nothing moves before the group ends";
  ASSERT_EQ(ncclGroupEnd(), ncclSuccess);
  for (int p = 0; p < kRanks; ++p) {
    for (size_t i = 0; i < out[static_cast<size_t>(p)].size(); ++i) {
      EXPECT_EQ(out[static_cast<size_t>(p)][i], static_cast<float>(1000 * p + rank_) + static_cast<float>(i));
    }
  }
}

TEST_F(Nccl, CommunicatorsOfSomeRanks) {
  ncclComm_t pair = nullptr, part = nullptr, alone = nullptr;
  ncclUniqueId id{};  // of each pair's first rank
  if (rank_ % 2 == 0) ncclGetUniqueId(&id);
  if (rank_ % 2 == 0) MPI_Send(&id, sizeof(id), MPI_BYTE, rank_ + 1, 0, MPI_COMM_WORLD);
  if (rank_ % 2 == 1) MPI_Recv(&id, sizeof(id), MPI_BYTE, rank_ - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  ASSERT_EQ(ncclCommInitRank(&pair, 2, id, rank_ % 2), ncclSuccess);
  ASSERT_EQ(ncclCommSplit(comm_, rank_ == 0 ? NCCL_SPLIT_NOCOLOR : 1, -rank_, &part, nullptr), ncclSuccess);
  ASSERT_EQ(ncclCommInitRank(&alone, 1, id, 0), ncclSuccess);
  float in_pair = static_cast<float>(rank_), in_part = in_pair, by_itself = in_pair;
  ASSERT_EQ(ncclAllReduce(&in_pair, &in_pair, 1, ncclFloat32, ncclSum, pair, nullptr), ncclSuccess);
  ASSERT_EQ(ncclAllReduce(&by_itself, &by_itself, 1, ncclFloat32, ncclSum, alone, nullptr), ncclSuccess);
  EXPECT_EQ(in_pair, rank_ < 2 ? 1 : 5);
  EXPECT_EQ(by_itself, static_cast<float>(rank_));
  EXPECT_EQ(part == nullptr, rank_ == 0);
  if (part != nullptr) {
    int rank = -1;
    ncclCommUserRank(part, &rank);
    EXPECT_EQ(rank, kRanks - 1 - rank_) << "by the key";
    ASSERT_EQ(ncclBcast(&in_part, 1, ncclFloat32, 0, part, nullptr), ncclSuccess);
    EXPECT_EQ(in_part, 3);
    ncclCommDestroy(part);
  }
  ncclCommDestroy(pair);
  ncclCommDestroy(alone);
}

TEST_F(Nccl, RanksThatDisagreeAreToldSo) {
  Floats a(20), b(20);
  const bool odd = rank_ == 1;
  const std::string count =
      fault([&] { ncclAllReduce(a.data(), b.data(), odd ? 9 : 10, ncclFloat32, ncclSum, comm_, nullptr); });
  EXPECT_NE(count.find("all_reduce of 9 f32 by sum (call 1 of the communicator)"), std::string::npos) << count;
  EXPECT_NE(count.find("rank 1 "), std::string::npos) << count;
  const auto in_new_communicator = [&](auto&& call) {
    MPI_Barrier(MPI_COMM_WORLD);
    ncclCommDestroy(comm_);
    EXPECT_EQ(ncclCommInitRank(&comm_, kRanks, shared_id(), rank_), ncclSuccess);
    return fault(call);
  };
  const std::string kind = in_new_communicator([&] {
    odd ? ncclAllGather(a.data(), b.data(), 4, ncclFloat32, comm_, nullptr)
        : ncclAllReduce(a.data(), b.data(), 4, ncclFloat32, ncclSum, comm_, nullptr);
  });
  EXPECT_NE(kind.find("all_gather of 4 f32"), std::string::npos) << kind;
  const std::string type = in_new_communicator(
      [&] { ncclAllReduce(a.data(), b.data(), 4, odd ? ncclInt32 : ncclFloat32, ncclSum, comm_, nullptr); });
  EXPECT_NE(type.find("all_reduce of 4 i32"), std::string::npos) << type;
  const std::string operation = in_new_communicator(
      [&] { ncclAllReduce(a.data(), b.data(), 4, ncclFloat32, odd ? ncclMax : ncclSum, comm_, nullptr); });
  EXPECT_NE(operation.find(" by maximum"), std::string::npos) << operation;
  const std::string message = in_new_communicator([&] {
    if (rank_ == 0) ncclSend(a.data(), 5, ncclFloat32, 1, comm_, nullptr);
    if (rank_ == 1) ncclRecv(a.data(), 4, ncclFloat32, 0, comm_, nullptr);
  });
  EXPECT_EQ(message.find("send of 5 f32") != std::string::npos, rank_ < 2) << message;
}

TEST_F(Nccl, ARankThatDoesNotComeIsNamed) {
  setenv("EMULATOR_NCCL_SECONDS", "0.3", 1);
  float value = 1;
  if (rank_ == 3) return;
  const std::string message = fault([&] { ncclAllReduce(&value, &value, 1, ncclFloat32, ncclSum, comm_, nullptr); });
  EXPECT_NE(message.find("for rank 3"), std::string::npos) << message;
  ncclResult_t error = ncclSuccess;
  EXPECT_EQ(ncclCommGetAsyncError(comm_, &error), ncclSuccess);
  EXPECT_EQ(error, ncclRemoteError);
}

TEST_F(Nccl, AbortEndsTheWait) {
  float value = 1;
  if (rank_ == 3) return;
  std::thread watchdog([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_EQ(ncclCommAbort(comm_), ncclSuccess);
  });
  EXPECT_EQ(ncclAllReduce(&value, &value, 1, ncclFloat32, ncclSum, comm_, nullptr), ncclSuccess);
  watchdog.join();
  comm_ = nullptr;
  EXPECT_EQ(value, 1);
}

// Two communicators on two streams, whose work every rank runs in another order.
TEST_F(Nccl, StreamsThatRunLateInAnyOrderDoNotWaitForEachOther) {
  setenv("EMULATOR_STREAMS", ("deferred:" + std::to_string(rank_ + 1)).c_str(), 1);
  ncclComm_t second = nullptr;
  ASSERT_EQ(ncclCommSplit(comm_, 0, rank_, &second, nullptr), ncclSuccess);
  cudaStream_t streams[2] = {};
  for (cudaStream_t& stream : streams)
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  float values[20];
  std::fill(std::begin(values), std::end(values), 1.0f);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(
        ncclAllReduce(&values[i], &values[i], 1, ncclFloat32, ncclSum, i % 2 == 0 ? comm_ : second, streams[i % 2]),
        ncclSuccess);
  }
  EXPECT_EQ(values[0], 1) << "nothing runs before somebody waits";
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (const float value : values) EXPECT_EQ(value, 4);
  for (cudaStream_t stream : streams) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(ncclCommDestroy(second), ncclSuccess);
  unsetenv("EMULATOR_STREAMS");
}

TEST_F(Nccl, RefusesWhatMakesNoSense) {
  float value = 1;
  ncclComm_t other = nullptr;
  EXPECT_EQ(ncclCommInitRank(&other, kRanks, shared_id(), rank_ == 2 ? 1 : rank_), ncclInvalidUsage) << "1 twice";
  EXPECT_EQ(ncclCommInitRank(&other, 2, shared_id(), 2), ncclInvalidArgument);
  EXPECT_EQ(ncclSend(&value, 1, ncclFloat32, kRanks, comm_, nullptr), ncclInvalidArgument);
  EXPECT_EQ(ncclAllReduce(&value, &value, 1, ncclUint8, ncclSum, comm_, nullptr), ncclInvalidArgument);
  EXPECT_EQ(ncclAllReduce(&value, &value, 1, ncclFloat32, ncclSum, nullptr, nullptr), ncclInvalidArgument);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
}

}  // namespace
