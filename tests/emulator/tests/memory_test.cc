// Mistakes with memory: each is a fault, or an error code of CUDA's and a finding.
#include <cmath>
#include <cstdlib>

#include "runtime_test.h"
#include "stream_kernels.h"

namespace planted {
namespace {

class Memory : public HostProgram {
 protected:
  // The text of the only finding.
  static std::string finding() {
    const auto findings = emulator::take_findings();
    return findings.size() == 1 ? findings.front() : std::to_string(findings.size()) + " findings";
  }
  static bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
};

TEST_F(Memory, HoldsNotANumberAtFirst) {
  float *data = device(), *result = pinned(0);
  EXPECT_CUDA(download(result, data, first_));
  EXPECT_CUDA(cudaStreamSynchronize(first_));
  for (size_t i = 0; i < kFloats; ++i) EXPECT_TRUE(std::isnan(result[i]));
}

TEST_F(Memory, FreedTwiceIsRefusedAndAFinding) {
  float* data = device();
  forget_device(data);
  EXPECT_CUDA(cudaFree(data));
  EXPECT_CODE(cudaFree(data), cudaErrorInvalidValue);
  EXPECT_TRUE(contains(finding(), "was freed before"));
}

TEST_F(Memory, FreeingWhatIsNoAllocationIsRefusedAndAFinding) {
  float *data = device(), *host = pinned(0), local = 0;
  EXPECT_CODE(cudaFree(&local), cudaErrorInvalidValue);
  EXPECT_TRUE(contains(finding(), "is no memory of CUDA's"));
  EXPECT_CODE(cudaFree(data + 1), cudaErrorInvalidValue);
  EXPECT_TRUE(contains(finding(), "is inside device memory of 400 bytes"));
  EXPECT_CODE(cudaFree(host), cudaErrorInvalidValue);
  EXPECT_TRUE(contains(finding(), "this is pinned host memory"));
  EXPECT_CODE(cudaFreeHost(data), cudaErrorInvalidValue);
  EXPECT_TRUE(contains(finding(), "this is device memory"));
  EXPECT_CUDA(cudaFree(nullptr));
  EXPECT_CUDA(cudaFreeHost(nullptr));
}

TEST_F(Memory, WhatIsNotReleasedIsNamedInOrder) {
  release();
  device();
  EXPECT_CUDA(cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking));
  const auto left = emulator::unreleased();
  ASSERT_EQ(left.size(), 2u);
  EXPECT_TRUE(contains(left[0], "device memory of 400 bytes (created as number ")) << left[0];
  EXPECT_TRUE(contains(left[1], "a stream (created as number ")) << left[1];
}

using MemoryDeathTest = Memory;

TEST_F(MemoryDeathTest, ALeakFailsTheProgramAtItsEnd) {
  const auto leak = [this] {
    device();
    std::exit(0);
  };
  EXPECT_EXIT(leak(), testing::ExitedWithCode(emulator::kFindingsExitStatus),
              "emulator: never released: device memory of 400 bytes");
  const auto leave_cleanly = [this] {
    release();
    std::exit(0);
  };
  EXPECT_EXIT(leave_cleanly(), testing::ExitedWithCode(0), "");
}

TEST_F(Memory, FreedBeforeTheWorkOnItRanIsAFault) {
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred:1");
  const std::function<cudaError_t(float*)> works[] = {
      [&](float* data) { return cudaMemsetAsync(data, 0, kBytes, first_); },
      [&](float* data) { return upload(data, pinned(1), first_); },
      [&](float* data) { return download(pinned(1), data, first_); },
  };
  for (const auto& work : works) {
    float* data = device();
    EXPECT_CUDA(work(data));
    forget_device(data);
    EXPECT_CUDA(cudaFree(data));
    EXPECT_TRUE(contains(fault([&] { cudaStreamSynchronize(first_); }), "memory that was freed before it ran"));
    EXPECT_CUDA(cudaStreamSynchronize(first_));
  }
}

TEST_F(Memory, WorkOnFreedMemoryIsAFault) {
  float *data = device(), *result = pinned(0);
  forget_device(data);
  EXPECT_CUDA(cudaFree(data));
  EXPECT_TRUE(contains(fault([&] { download(result, data, first_); }), "the source was freed"));
  EXPECT_TRUE(contains(fault([&] { cudaMemsetAsync(data, 0, kBytes, first_); }), "the target was freed"));
}

TEST_F(Memory, MemoryFreedOnAStreamIsThereUntilThen) {
  for (const char* mode : kStreamModes) {
    const WithVariable with_mode("EMULATOR_STREAMS", mode);
    void* data = nullptr;
    float* result = pinned(0);
    EXPECT_CUDA(cudaMallocAsync(&data, kBytes, first_));
    EXPECT_CUDA(cudaMemsetAsync(data, 0, kBytes, first_));
    EXPECT_CUDA(download(result, static_cast<float*>(data), first_));
    EXPECT_CUDA(cudaFreeAsync(data, first_));
    EXPECT_CUDA(cudaStreamSynchronize(first_));
    EXPECT_NE(fault([&] { download(result, static_cast<float*>(data), first_); }), "");
  }
}

TEST_F(Memory, CopiesAndFillsBeyondTheEndAreFaults) {
  float *small = device(kFloats - 1), *large = device(), *host = pinned(0);
  std::vector<float> pageable(kFloats);
  EXPECT_TRUE(contains(fault([&] { upload(small, host, first_); }),
                       "the target, 400 bytes from byte 0, reaches beyond device memory of 396 bytes"));
  EXPECT_TRUE(contains(fault([&] { download(pageable.data(), large + 1, first_); }),
                       "the source, 400 bytes from byte 4, reaches beyond device memory of 400 bytes"));
  EXPECT_NE(fault([&] { download(host + 1, large, first_); }), "");
  EXPECT_NE(fault([&] { cudaMemsetAsync(small, 0, kBytes, first_); }), "");
  EXPECT_NE(fault([&] { cudaMemset(small, 0, kBytes); }), "");
  EXPECT_NE(fault([&] { cudaMemcpy(small, large, kBytes, cudaMemcpyDeviceToDevice); }), "");
}

TEST_F(Memory, ACopysKindMustFitItsPointers) {
  float *a = device(), *b = device(), *host = pinned(0);
  const auto copy = [&](void* to, const void* from, cudaMemcpyKind kind) {
    return fault([&] { EXPECT_CUDA(cudaMemcpyAsync(to, from, kBytes, kind, first_)); });
  };
  EXPECT_TRUE(contains(copy(a, b, cudaMemcpyHostToDevice), "the source is host memory, but it is not"));
  EXPECT_TRUE(contains(copy(host, b, cudaMemcpyHostToDevice), "the target is device memory, but it is not"));
  EXPECT_NE(copy(a, host, cudaMemcpyDeviceToDevice), "");
  EXPECT_NE(copy(a, b, cudaMemcpyHostToHost), "");
  EXPECT_EQ(copy(a, b, cudaMemcpyDefault), "");
  EXPECT_EQ(copy(host, b, cudaMemcpyDefault), "");
  EXPECT_TRUE(contains(copy(a, a + 1, cudaMemcpyDeviceToDevice), "reaches beyond"));
  float* twice_as_long = device(2 * kFloats);
  EXPECT_TRUE(contains(copy(twice_as_long, twice_as_long + 1, cudaMemcpyDeviceToDevice), "overlap"));
  EXPECT_NE(fault([&] { cudaMemsetAsync(std::vector<float>(kFloats).data(), 0, kBytes, first_); }), "");
}

TEST_F(Memory, AWriteJustBesideAnAllocationIsAFinding) {
  if (kBuild == Build::kAddressSanitizer) GTEST_SKIP() << "the sanitizer ends the program at the write";
  for (const bool after : {true, false}) {
    float* data = device();
    *(after ? data + kFloats : data - 1) = 0;
    forget_device(data);
    EXPECT_CUDA(cudaFree(data));
    EXPECT_TRUE(contains(finding(), "bytes beside device memory of 400 bytes"));
  }
}

TEST_F(Memory, AKernelThatTouchesFreedMemoryIsAFault) {
  if (kBuild != Build::kPlain) GTEST_SKIP() << "the sanitizer ends the program at the access";
  const WithVariable with_mode("EMULATOR_STREAMS", "deferred:1");
  for (const char* order : kOrders) {
    const WithVariable with_order("EMULATOR_ORDER", order);
    float *data = device(), *alive = device();
    EXPECT_CUDA(add(data, kFloats, 1, first_));
    forget_device(data);
    EXPECT_CUDA(cudaFree(data));
    const auto message = fault([&] { cudaStreamSynchronize(first_); });
    EXPECT_TRUE(contains(message, "a kernel touches freed memory: device memory of 400 bytes")) << message;
    EXPECT_TRUE(contains(message, " [block ")) << message;
    EXPECT_CUDA(add(alive, kFloats, 1, first_));
    EXPECT_CUDA(cudaStreamSynchronize(first_));
  }
}

TEST_F(Memory, PointersTellWhatTheyAre) {
  cudaPointerAttributes attributes{};
  float *data = device(), *host = pinned(0), local = 0;
  EXPECT_CUDA(cudaPointerGetAttributes(&attributes, data + 1));
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  EXPECT_CUDA(cudaPointerGetAttributes(&attributes, host));
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  EXPECT_CUDA(cudaPointerGetAttributes(&attributes, &local));
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
}

TEST_F(Memory, NothingIsAnAllocationToo) {
  void* data = this;
  EXPECT_CUDA(cudaMalloc(&data, 0));
  EXPECT_EQ(data, nullptr);
  EXPECT_CUDA(cudaMemcpyAsync(nullptr, nullptr, 0, cudaMemcpyHostToDevice, first_));
  EXPECT_CUDA(cudaMemsetAsync(nullptr, 0, 0, first_));
}

}  // namespace
}  // namespace planted
