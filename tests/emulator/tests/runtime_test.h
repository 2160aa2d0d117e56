// What tests of host programs share.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "emulator/fault.h"
#include "emulator/findings.h"
#include "environment.h"

namespace planted {

constexpr const char* kDeferred[] = {"deferred:1", "deferred:2", "deferred:3", "deferred:4"};
constexpr const char* kStreamModes[] = {"eager", "deferred:1", "deferred:2", "deferred:3", "deferred:4"};

#define EXPECT_CUDA(call) EXPECT_EQ((call), cudaSuccess)
#define EXPECT_CODE(call, code)                         \
  EXPECT_STREQ(cudaGetErrorName(call), #code) << #call; \
  EXPECT_STREQ(cudaGetErrorName(cudaGetLastError()), #code) << #call

// A program with two non-blocking streams; it must release what it creates and make no mistakes, unless a test says so.
class HostProgram : public testing::Test {
 protected:
  void SetUp() override { create_streams(); }
  void TearDown() override {
    release();
    EXPECT_EQ(emulator::take_findings(), std::vector<std::string>{});
    EXPECT_EQ(emulator::unreleased(), std::vector<std::string>{});
    EXPECT_CUDA(cudaGetLastError());
  }

  void create_streams() {
    EXPECT_CUDA(cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking));
    EXPECT_CUDA(cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking));
    EXPECT_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
  }

  float* device(size_t floats = kFloats) {
    void* data = nullptr;
    EXPECT_CUDA(cudaMalloc(&data, floats * sizeof(float)));
    device_.push_back(data);
    return static_cast<float*>(data);
  }
  float* pinned(float value, size_t floats = kFloats) {
    void* data = nullptr;
    EXPECT_CUDA(cudaHostAlloc(&data, floats * sizeof(float), cudaHostAllocDefault));
    pinned_.push_back(data);
    std::fill_n(static_cast<float*>(data), floats, value);
    return static_cast<float*>(data);
  }
  cudaError_t upload(float* target, const float* source, cudaStream_t stream) {
    return cudaMemcpyAsync(target, source, kBytes, cudaMemcpyHostToDevice, stream);
  }
  cudaError_t download(float* target, const float* source, cudaStream_t stream) {
    return cudaMemcpyAsync(target, source, kBytes, cudaMemcpyDeviceToHost, stream);
  }
  void expect_all(const float* values, float expected) {
    for (size_t i = 0; i < kFloats; ++i) ASSERT_EQ(values[i], expected) << "element " << i;
  }
  bool all(const float* values, float expected) {
    return std::all_of(values, values + kFloats, [expected](float value) { return value == expected; });
  }

  // The text of the fault that ends the program; empty if none does.
  template <class Program>
  static std::string fault(Program&& program) {
    try {
      program();
    } catch (const emulator::Fault& error) {
      return error.what();
    }
    return {};
  }

  // After all work, in whatever mode.
  void release() {
    cudaDeviceSynchronize();
    for (void* data : device_) EXPECT_CUDA(cudaFree(data));
    for (void* data : pinned_) EXPECT_CUDA(cudaFreeHost(data));
    if (first_ != nullptr) {
      EXPECT_CUDA(cudaStreamDestroy(first_));
    }
    if (second_ != nullptr) {
      EXPECT_CUDA(cudaStreamDestroy(second_));
    }
    if (event_ != nullptr) {
      EXPECT_CUDA(cudaEventDestroy(event_));
    }
    device_.clear(), pinned_.clear();
    first_ = second_ = nullptr, event_ = nullptr;
  }
  void forget_device(const void* data) { std::erase(device_, data); }

  static constexpr size_t kFloats = 100, kBytes = kFloats * sizeof(float);
  cudaStream_t first_ = nullptr, second_ = nullptr;
  cudaEvent_t event_ = nullptr;

 private:
  std::vector<void*> device_, pinned_;
};

}  // namespace planted
