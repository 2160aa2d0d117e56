// The emulated NCCL's calls on streams: in graphs, asked for again and again, and with ranks that never come.
#include <cuda_runtime_api.h>

#include <chrono>
#include <string>
#include <thread>

#include "ranks.h"

namespace {

using nccl_test::Floats;
using nccl_test::Nccl;

class NcclStreams : public Nccl {
 protected:
  void SetUp() override {
    Nccl::SetUp();
    for (cudaStream_t* stream : {&compute_, &communication_}) {
      ASSERT_EQ(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), cudaSuccess);
    }
    for (cudaEvent_t* event : {&fork_, &join_}) {
      ASSERT_EQ(cudaEventCreateWithFlags(event, cudaEventDisableTiming), cudaSuccess);
    }
  }
  void TearDown() override {
    for (const char* variable : {"EMULATOR_STREAMS", "EMULATOR_NCCL_LATE"}) unsetenv(variable);
    for (const cudaStream_t stream : {compute_, communication_}) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    for (const cudaEvent_t event : {fork_, join_}) EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
    Nccl::TearDown();
  }

  void defer(int seed) { setenv("EMULATOR_STREAMS", ("deferred:" + std::to_string(10 * seed + rank_)).c_str(), 1); }
  void reduce(float& value, cudaStream_t stream) {
    EXPECT_EQ(ncclAllReduce(&value, &value, 1, ncclFloat32, ncclSum, comm_, stream), ncclSuccess);
  }
  void fork() {
    EXPECT_EQ(cudaEventRecord(fork_, compute_), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(communication_, fork_, 0), cudaSuccess);
  }
  void join() {
    EXPECT_EQ(cudaEventRecord(join_, communication_), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(compute_, join_, 0), cudaSuccess);
  }
  // How often the host had to ask; 10,000: it gave up.
  static int asked(cudaStream_t stream) {
    int asked = 0;
    while (asked < 10000 && cudaStreamQuery(stream) == cudaErrorNotReady) ++asked;
    return asked;
  }

  cudaStream_t compute_ = nullptr, communication_ = nullptr;
  cudaEvent_t fork_ = nullptr, join_ = nullptr;
};

// Two calls a graph, on two streams that nothing else orders; and a call beside the graph.
TEST_F(NcclStreams, GraphsRepeatTheirCalls) {
  float a = 1, b = 1, c = 1;
  for (int seed = 0; seed < 4; ++seed) {
    if (seed > 0) defer(seed);
    a = b = c = 1;
    reduce(c, compute_);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    fork();
    reduce(a, communication_);
    reduce(b, compute_);
    join();
    ASSERT_EQ(cudaStreamEndCapture(compute_, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    EXPECT_EQ(a, 1) << "a capture runs nothing";
    for (int i = 0; i < 2; ++i) ASSERT_EQ(cudaGraphLaunch(exec, compute_), cudaSuccess);
    reduce(c, compute_);
    ASSERT_EQ(cudaStreamSynchronize(compute_), cudaSuccess);
    EXPECT_EQ(a, 16);
    EXPECT_EQ(b, 16);
    EXPECT_EQ(c, 16);
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  }
}

TEST_F(NcclStreams, AskingBringsCallsForward) {
  defer(1);
  Floats values(40, 1.0f);
  for (float& value : values) reduce(value, communication_);
  EXPECT_EQ(values[0], 1);
  EXPECT_LT(asked(communication_), 10000);
  for (const float value : values) EXPECT_EQ(value, 4);
}

// As NCCL has it: the device goes on waiting, and the host learns of it by asking.
TEST_F(NcclStreams, ALostRankCanBeAnAsynchronousError) {
  setenv("EMULATOR_NCCL_SECONDS", "0.3", 1);
  setenv("EMULATOR_NCCL_LATE", "error", 1);
  for (const bool late : {false, true}) {
    if (late) defer(2);
    MPI_Barrier(MPI_COMM_WORLD);
    if (late) {
      ASSERT_EQ(ncclCommAbort(comm_), ncclSuccess);
      ASSERT_EQ(ncclCommInitRank(&comm_, nccl_test::kRanks, nccl_test::shared_id(), rank_), ncclSuccess);
    }
    if (rank_ == 3) continue;
    float value = 1;
    reduce(value, communication_);
    ncclResult_t error = ncclSuccess;
    const auto start = std::chrono::steady_clock::now();
    while (error == ncclSuccess && std::chrono::steady_clock::now() - start < std::chrono::seconds(5)) {
      ASSERT_EQ(cudaStreamQuery(communication_), cudaErrorNotReady);
      ASSERT_EQ(ncclCommGetAsyncError(comm_, &error), ncclSuccess);
    }
    EXPECT_EQ(error, ncclRemoteError);
    const std::string message = fault([&] { cudaStreamSynchronize(communication_); });
    EXPECT_NE(message.find("lost rank for ever"), std::string::npos) << message;
    ASSERT_EQ(ncclCommAbort(comm_), ncclSuccess);
    EXPECT_LT(asked(communication_), 10000) << "what was aborted ends";
    EXPECT_EQ(value, 1);
    ASSERT_EQ(ncclCommInitRank(&comm_, 1, {}, 0), ncclSuccess);
  }
}

TEST_F(NcclStreams, AbortEndsALateCall) {
  defer(3);
  float value = 1;
  if (rank_ == 3) return;
  reduce(value, communication_);
  EXPECT_EQ(cudaStreamQuery(communication_), cudaErrorNotReady);
  std::thread watchdog([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_EQ(ncclCommAbort(comm_), ncclSuccess);
  });
  EXPECT_EQ(cudaStreamSynchronize(communication_), cudaSuccess);
  watchdog.join();
  comm_ = nullptr;
  EXPECT_EQ(value, 1);
}

// Every rank meets another one's call, on its stream and in its time, and says which.
TEST_F(NcclStreams, RanksThatDisagreeLateAreToldSo) {
  defer(4);
  float a = 1, b[4] = {};
  const auto gather = [&] { ncclAllGather(&a, b, 1, ncclFloat32, comm_, communication_); };
  if (rank_ == 1) gather();
  reduce(a, communication_);
  if (rank_ != 1) gather();
  const std::string message = fault([&] { cudaStreamSynchronize(communication_); });
  EXPECT_NE(message.find("all_gather of 1 f32"), std::string::npos) << message;
  EXPECT_NE(message.find("all_reduce of 1 f32 by sum"), std::string::npos) << message;
}

}  // namespace
