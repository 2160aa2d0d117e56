// Graphs: recorded work runs when the graph is launched, in the order that streams and events gave it; what must not be
// recorded is refused with CUDA's own codes.
#include <cmath>
#include <thread>

#include "runtime_test.h"
#include "stream_kernels.h"

namespace planted {
namespace {

class Graphs : public HostProgram {
 protected:
  void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) {
    EXPECT_CUDA(cudaStreamBeginCapture(first_, mode));
  }
  cudaGraphExec_t end() {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    EXPECT_CUDA(cudaStreamEndCapture(first_, &graph));
    EXPECT_CUDA(cudaGraphGetNodes(graph, nullptr, &nodes_));
    EXPECT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    EXPECT_CUDA(cudaGraphDestroy(graph));
    return exec;
  }
  // The capture is lost, and says so.
  void expect_lost(const std::string& why) {
    cudaStreamCaptureStatus status{};
    EXPECT_CUDA(cudaStreamIsCapturing(first_, &status));
    EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated) << why;
    EXPECT_CODE(add(nullptr, 1, 0, first_), cudaErrorStreamCaptureInvalidated);
    cudaGraph_t graph = nullptr;
    EXPECT_CODE(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
    EXPECT_CUDA(cudaStreamIsCapturing(first_, &status));
    EXPECT_EQ(status, cudaStreamCaptureStatusNone);
  }
  void fork() {
    EXPECT_CUDA(cudaEventRecord(event_, first_));
    EXPECT_CUDA(cudaStreamWaitEvent(second_, event_, 0));
  }
  void join() {
    EXPECT_CUDA(cudaEventRecord(event_, second_));
    EXPECT_CUDA(cudaStreamWaitEvent(first_, event_, 0));
  }

  size_t nodes_ = 0;
};

TEST_F(Graphs, ReplayWithForkAndJoinReadsItsInputsAnew) {
  for (const char* mode : kStreamModes) {
    const WithVariable with_mode("EMULATOR_STREAMS", mode);
    float *source = pinned(1), *target = pinned(-1), *in = device(), *out = device(), *side = device();
    begin();
    EXPECT_CUDA(upload(in, source, first_));
    fork();
    EXPECT_CUDA(twice(side, in, kFloats, second_));
    EXPECT_CUDA(add(side, kFloats, 1, second_));
    EXPECT_CUDA(cudaMemsetAsync(out, 0, kBytes, first_));
    join();
    EXPECT_CUDA(twice(out, side, kFloats, first_));
    EXPECT_CUDA(download(target, out, first_));
    const cudaGraphExec_t exec = end();
    EXPECT_EQ(nodes_, 6u);
    EXPECT_CUDA(cudaDeviceSynchronize());
    expect_all(target, -1);  // recorded, not run
    for (const float value : {1.0f, 5.0f, 7.0f}) {
      std::fill_n(source, kFloats, value);
      EXPECT_CUDA(cudaGraphLaunch(exec, first_));
      EXPECT_CUDA(cudaStreamSynchronize(first_));
      expect_all(target, 4 * value + 2);
    }
    EXPECT_CUDA(cudaGraphExecDestroy(exec));
  }
}

TEST_F(Graphs, LaunchesRunInTheirStreamsOrder) {
  for (const char* mode : kStreamModes) {
    const WithVariable with_mode("EMULATOR_STREAMS", mode);
    float *data = device(), *result = pinned(0);
    begin();
    EXPECT_CUDA(twice(data, data, kFloats, first_));
    EXPECT_CUDA(add(data, kFloats, 1, first_));
    const cudaGraphExec_t exec = end();
    EXPECT_CUDA(cudaMemsetAsync(data, 0, kBytes, first_));
    EXPECT_CUDA(cudaGraphLaunch(exec, first_));
    EXPECT_CUDA(cudaGraphLaunch(exec, first_));
    EXPECT_CUDA(cudaGraphExecDestroy(exec));
    EXPECT_CUDA(add(data, kFloats, 10, first_));
    EXPECT_CUDA(download(result, data, first_));
    EXPECT_CUDA(cudaStreamSynchronize(first_));
    expect_all(result, 13);
  }
}

// The side stream's work is joined, but what reads it does not wait for it.
TEST_F(Graphs, AMissingWaitInAGraphShowsInSomeOrder) {
  const auto is_wrong = [this](const char* mode) {
    const WithVariable with_mode("EMULATOR_STREAMS", mode);
    float *target = pinned(-1), *in = device(), *out = device();
    begin();
    EXPECT_CUDA(cudaMemsetAsync(in, 0, kBytes, first_));
    fork();
    EXPECT_CUDA(add(in, kFloats, 1, second_));
    EXPECT_CUDA(twice(out, in, kFloats, first_));
    join();
    EXPECT_CUDA(download(target, out, first_));
    const cudaGraphExec_t exec = end();
    EXPECT_CUDA(cudaGraphLaunch(exec, first_));
    EXPECT_CUDA(cudaStreamSynchronize(first_));
    EXPECT_CUDA(cudaGraphExecDestroy(exec));
    return !all(target, 2);
  };
  EXPECT_FALSE(is_wrong("eager"));
  EXPECT_TRUE(std::ranges::any_of(kDeferred, is_wrong));
}

TEST_F(Graphs, WhatWaitsForTheDeviceIsRefusedAndTheCaptureIsLost) {
  float *data = device(), *host = pinned(0);
  std::vector<float> pageable(kFloats);
  const std::pair<const char*, std::function<cudaError_t()>> calls[] = {
      {"cudaStreamSynchronize", [&] { return cudaStreamSynchronize(first_); }},
      {"cudaStreamQuery", [&] { return cudaStreamQuery(first_); }},
      {"cudaDeviceSynchronize", [] { return cudaDeviceSynchronize(); }},
      {"cudaMemcpy", [&] { return cudaMemcpy(data, host, kBytes, cudaMemcpyHostToDevice); }},
      {"cudaMemset", [&] { return cudaMemset(data, 0, kBytes); }},
      {"upload from pageable memory", [&] { return upload(data, pageable.data(), first_); }},
      {"download to pageable memory", [&] { return download(pageable.data(), data, first_); }},
      {"cudaMalloc", [] { return cudaMalloc(std::make_unique<void*>().get(), 1); }},
      {"cudaFree", [&] { return cudaFree(data); }},
      {"cudaHostAlloc", [] { return cudaHostAlloc(std::make_unique<void*>().get(), 1, 0); }},
  };
  for (const auto& [name, call] : calls) {
    begin();
    EXPECT_CODE(call(), cudaErrorStreamCaptureUnsupported) << name;
    expect_lost(name);
  }
}

TEST_F(Graphs, ARelaxedCapturePermitsAllocations) {
  begin(cudaStreamCaptureModeRelaxed);
  float *data = device(), *host = pinned(2);
  EXPECT_CUDA(upload(data, host, first_));
  const cudaGraphExec_t exec = end();
  EXPECT_CUDA(cudaGraphLaunch(exec, first_));
  EXPECT_CUDA(cudaGraphExecDestroy(exec));
}

TEST_F(Graphs, EventsOfACaptureAreNotForTheHost) {
  begin();
  EXPECT_CUDA(cudaEventRecord(event_, first_));
  EXPECT_CODE(cudaEventSynchronize(event_), cudaErrorCapturedEvent);
  expect_lost("cudaEventSynchronize");
  begin();
  EXPECT_CUDA(cudaEventRecord(event_, first_));
  EXPECT_CODE(cudaEventQuery(event_), cudaErrorCapturedEvent);
  expect_lost("cudaEventQuery");
  EXPECT_CODE(cudaStreamWaitEvent(second_, event_, 0), cudaErrorCapturedEvent);
}

TEST_F(Graphs, WorkThatIsNotJoinedIsRefused) {
  float* data = device();
  begin();
  fork();
  EXPECT_CUDA(add(data, kFloats, 1, second_));
  cudaGraph_t graph = nullptr;
  EXPECT_CODE(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(graph, nullptr);
  EXPECT_CUDA(add(data, kFloats, 1, second_)) << "the stream no longer records";
}

TEST_F(Graphs, CapturesDoNotMixWithOtherWork) {
  EXPECT_CUDA(cudaEventRecord(event_, second_));
  begin();
  EXPECT_CODE(cudaStreamWaitEvent(first_, event_, 0), cudaErrorStreamCaptureIsolation);
  expect_lost("waiting for work that is not recorded");

  begin();
  EXPECT_CUDA(cudaStreamBeginCapture(second_, cudaStreamCaptureModeThreadLocal));
  EXPECT_CUDA(cudaEventRecord(event_, second_));
  EXPECT_CODE(cudaStreamWaitEvent(first_, event_, 0), cudaErrorStreamCaptureMerge);
  cudaGraph_t graph = nullptr;
  EXPECT_CODE(cudaStreamEndCapture(second_, &graph), cudaErrorStreamCaptureInvalidated);
  expect_lost("two captures merged");
}

TEST_F(Graphs, ACaptureEndsWhereItBegan) {
  cudaGraph_t graph = nullptr;
  EXPECT_CODE(cudaStreamEndCapture(first_, &graph), cudaErrorIllegalState);
  EXPECT_CODE(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed), cudaErrorStreamCaptureUnsupported);
  begin();
  EXPECT_CODE(cudaStreamBeginCapture(first_, cudaStreamCaptureModeRelaxed), cudaErrorIllegalState);
  fork();
  EXPECT_CODE(cudaStreamEndCapture(second_, &graph), cudaErrorStreamCaptureUnmatched);
  expect_lost("ended on another stream");

  begin();
  std::thread([&] { EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureWrongThread); }).join();
  EXPECT_CUDA(cudaGraphExecDestroy(end()));
}

TEST_F(Graphs, MemoryFreedBeforeAReplayIsAFault) {
  float* data = device();
  begin();
  EXPECT_CUDA(cudaMemsetAsync(data, 0, kBytes, first_));
  const cudaGraphExec_t exec = end();
  forget_device(data);
  EXPECT_CUDA(cudaFree(data));
  EXPECT_NE(fault([&] { cudaGraphLaunch(exec, first_); }).find("memory that was freed before it ran"),
            std::string::npos);
  EXPECT_CUDA(cudaGraphExecDestroy(exec));
}

TEST_F(Graphs, NotReleasedOrReleasedTwiceIsAFinding) {
  begin();
  const cudaGraphExec_t exec = end();
  EXPECT_NE(emulator::unreleased().back().find("an executable graph (created as number "), std::string::npos);
  EXPECT_CUDA(cudaGraphExecDestroy(exec));
  EXPECT_CODE(cudaGraphExecDestroy(exec), cudaErrorInvalidValue);
  EXPECT_CODE(cudaGraphLaunch(exec, first_), cudaErrorInvalidValue);
  EXPECT_EQ(emulator::take_findings(),
            std::vector<std::string>{"cudaGraphExecDestroy: there is no such graph; destroyed before?"});
}

}  // namespace
}  // namespace planted
