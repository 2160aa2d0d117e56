// Streams and events: a right program is right in every mode; a program that forgets to wait is wrong in one of them.
#include <cmath>

#include "runtime_test.h"
#include "stream_kernels.h"

namespace planted {
namespace {

class Streams : public HostProgram {
 protected:
  // Uploads on one stream, computes on the other, downloads on the first. What may be forgotten is an argument.
  struct Forgets {
    bool first_wait = false, second_wait = false, synchronization = false, pinned_buffer = false;
  };
  float run(const char* mode, const Forgets& forgets) {
    const WithVariable with_mode("EMULATOR_STREAMS", mode);
    float *source = pinned(1), *target = pinned(-1), *in = device(), *out = device();
    EXPECT_CUDA(upload(in, source, first_));
    EXPECT_CUDA(cudaEventRecord(event_, first_));
    if (forgets.pinned_buffer) std::fill_n(source, kFloats, 100.0f);
    if (!forgets.first_wait) {
      EXPECT_CUDA(cudaStreamWaitEvent(second_, event_, 0));
    }
    EXPECT_CUDA(twice(out, in, kFloats, second_));
    EXPECT_CUDA(add(out, kFloats, 1, second_));
    EXPECT_CUDA(cudaEventRecord(event_, second_));
    if (!forgets.second_wait) {
      EXPECT_CUDA(cudaStreamWaitEvent(first_, event_, 0));
    }
    EXPECT_CUDA(download(target, out, first_));
    if (!forgets.synchronization) {
      EXPECT_CUDA(cudaStreamSynchronize(first_));
    }
    const float result = target[kFloats - 1];
    EXPECT_CUDA(cudaDeviceSynchronize());
    return result;
  }
};

TEST_F(Streams, ARightProgramIsRightInEveryMode) {
  for (const char* mode : kStreamModes) EXPECT_EQ(run(mode, {}), 3) << mode;
}

TEST_F(Streams, AMissingWaitShowsWhenWorkIsDeferred) {
  EXPECT_EQ(run("eager", {.second_wait = true}), 3) << "what an eager device shows is no proof";
  EXPECT_TRUE(std::isnan(run("deferred:1", {.second_wait = true}))) << "nobody computed what is downloaded";
  EXPECT_EQ(run("eager", {.first_wait = true}), 3);
  const auto is_wrong = [this](const char* mode) { return std::isnan(run(mode, {.first_wait = true})); };
  EXPECT_TRUE(std::ranges::any_of(kDeferred, is_wrong)) << "the order is random, but one of them";
}

TEST_F(Streams, APinnedBufferReusedTooEarlyShowsWhenWorkIsDeferred) {
  EXPECT_EQ(run("eager", {.pinned_buffer = true}), 3);
  EXPECT_EQ(run("deferred:1", {.pinned_buffer = true}), 201);
}

TEST_F(Streams, AResultReadBeforeSynchronizingShowsWhenWorkIsDeferred) {
  EXPECT_EQ(run("eager", {.synchronization = true}), 3);
  EXPECT_EQ(run("deferred:1", {.synchronization = true}), -1);
}

// Both orders of two kernels that nothing orders occur.
TEST_F(Streams, WorkThatNothingOrdersRunsInBothOrders) {
  bool add_first = false, twice_first = false;
  for (int seed = 0; seed < 16; ++seed) {
    const WithVariable with_mode("EMULATOR_STREAMS", ("deferred:" + std::to_string(seed)).c_str());
    float *in = device(), *out = device(), *result = pinned(0);
    EXPECT_CUDA(cudaMemsetAsync(in, 0, kBytes, first_));
    EXPECT_CUDA(cudaStreamSynchronize(first_));
    EXPECT_CUDA(add(in, kFloats, 1, first_));
    EXPECT_CUDA(twice(out, in, kFloats, second_));
    EXPECT_CUDA(cudaDeviceSynchronize());
    EXPECT_CUDA(download(result, out, second_));
    EXPECT_CUDA(cudaStreamSynchronize(second_));
    add_first |= all(result, 2), twice_first |= all(result, 0);
  }
  EXPECT_TRUE(add_first && twice_first);
}

TEST_F(Streams, TheHostWaitsForNoMoreThanItAsksFor) {
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred:1");
  float *a = device(), *b = device(), *result = pinned(0), *other = pinned(5);
  EXPECT_CUDA(cudaMemsetAsync(a, 0, kBytes, first_));
  EXPECT_CUDA(cudaEventRecord(event_, first_));
  EXPECT_CUDA(add(a, kFloats, 1, first_));
  EXPECT_CUDA(cudaMemsetAsync(b, 0, kBytes, second_));
  EXPECT_CUDA(download(other, b, second_));
  EXPECT_CUDA(cudaEventSynchronize(event_));
  EXPECT_CUDA(cudaEventQuery(event_));
  EXPECT_EQ(cudaStreamQuery(first_), cudaErrorNotReady);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "not ready is no error";
  EXPECT_CUDA(download(result, a, first_));
  EXPECT_CUDA(cudaStreamSynchronize(first_));
  expect_all(result, 1);
  expect_all(other, 5);
  EXPECT_CUDA(cudaStreamSynchronize(second_));
  expect_all(other, 0);
}

TEST_F(Streams, AskingBringsWorkForward) {
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred:1");
  float* data = device();
  EXPECT_CUDA(cudaMemsetAsync(data, 0, kBytes, first_));
  for (int i = 0; i < 40; ++i) EXPECT_CUDA(add(data, kFloats, 1, first_));
  EXPECT_CUDA(cudaEventRecord(event_, first_));
  int asked = 0;
  while (cudaEventQuery(event_) == cudaErrorNotReady && asked < 100) ++asked;
  EXPECT_EQ(asked, 3) << "every time a few of the 42 pieces run";
  EXPECT_CUDA(cudaStreamQuery(first_));
}

TEST_F(Streams, PageableMemoryIsReadAndWrittenBeforeTheCallReturns) {
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred:1");
  float* data = device();
  std::vector<float> source(kFloats, 1.0f), target(kFloats);
  EXPECT_CUDA(upload(data, source.data(), first_));
  source.assign(kFloats, 9.0f);
  EXPECT_EQ(cudaStreamQuery(first_), cudaErrorNotReady);
  EXPECT_CUDA(download(target.data(), data, first_));
  EXPECT_CUDA(cudaStreamQuery(first_));
  expect_all(target.data(), 1);
}

TEST_F(Streams, TheNullStreamIsRefusedBesideNonBlockingStreams) {
  float* data = device();
  const auto message = fault([&] { EXPECT_CUDA(add(data, kFloats, 1, nullptr)); });
  EXPECT_EQ(message,
            "emulator: a kernel on the null stream: nothing orders it with the program's non-blocking streams");
  EXPECT_NE(fault([&] { EXPECT_CUDA(cudaMemsetAsync(data, 0, kBytes, cudaStreamLegacy)); }), "");
}

TEST_F(Streams, TheNullStreamWaitsForBlockingStreamsAndTheyForIt) {
  for (const char* mode : kStreamModes) {
    const WithVariable with_mode("EMULATOR_STREAMS", mode);
    release();
    EXPECT_CUDA(cudaStreamCreate(&first_));
    EXPECT_CUDA(cudaStreamCreate(&second_));
    EXPECT_CUDA(cudaEventCreate(&event_));
    float *data = device(), *result = pinned(0);
    EXPECT_CUDA(cudaMemsetAsync(data, 0, kBytes, first_));
    EXPECT_CUDA(add(data, kFloats, 1, nullptr));
    EXPECT_CUDA(twice(data, data, kFloats, second_));
    EXPECT_CUDA(add(data, kFloats, 1, nullptr));
    EXPECT_CUDA(cudaMemcpy(result, data, kBytes, cudaMemcpyDeviceToHost));
    expect_all(result, 3);
  }
}

TEST_F(Streams, ASynchronousFillIsNotOrderedWithNonBlockingStreams) {
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred:1");
  float *data = device(), *result = pinned(0);
  EXPECT_CUDA(cudaMemset(data, 0, kBytes));
  EXPECT_CUDA(download(result, data, first_));
  EXPECT_CUDA(cudaStreamSynchronize(first_));
  EXPECT_TRUE(std::isnan(result[0]));
}

TEST_F(Streams, EventsTellTheTimeBetweenThem) {
  cudaEvent_t start = nullptr, end = nullptr;
  EXPECT_CUDA(cudaEventCreate(&start));
  EXPECT_CUDA(cudaEventCreate(&end));
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred:1");
  float milliseconds = -1;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle) << "never recorded";
  EXPECT_CUDA(cudaEventRecord(start, first_));
  EXPECT_CUDA(cudaEventRecord(end, first_));
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
  EXPECT_CUDA(cudaEventSynchronize(end));
  EXPECT_CUDA(cudaEventElapsedTime(&milliseconds, start, end));
  EXPECT_GE(milliseconds, 0);
  EXPECT_CUDA(cudaEventRecord(event_, first_));
  EXPECT_CUDA(cudaEventSynchronize(event_));
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event_, end), cudaErrorInvalidResourceHandle) << "made without time";
  cudaGetLastError();
  EXPECT_CUDA(cudaEventDestroy(start));
  EXPECT_CUDA(cudaEventDestroy(end));
}

TEST_F(Streams, AStreamDestroyedTwiceIsAFinding) {
  cudaStream_t extra = nullptr;
  EXPECT_CUDA(cudaStreamCreateWithFlags(&extra, cudaStreamNonBlocking));
  EXPECT_CUDA(cudaStreamDestroy(extra));
  EXPECT_CODE(cudaStreamDestroy(extra), cudaErrorInvalidResourceHandle);
  EXPECT_CODE(cudaStreamSynchronize(extra), cudaErrorInvalidResourceHandle);
  float* data = device();
  EXPECT_CODE(add(data, kFloats, 1, extra), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(emulator::take_findings(),
            std::vector<std::string>{"cudaStreamDestroy: there is no such stream; destroyed before?"});
}

TEST_F(Streams, AnUnknownModeIsAnErrorOfUsage) {
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred");
  float* data = device();
  EXPECT_EQ(fault([&] { cudaMemsetAsync(data, 0, kBytes, first_); }),
            "emulator: EMULATOR_STREAMS=deferred: allowed: eager, deferred:SEED");
  unsetenv("EMULATOR_STREAMS");
}

}  // namespace
}  // namespace planted
