// Errors on demand (EMULATOR_FAIL), and errors of the program's own making: what calls answer, and what comes after.
#include "runtime_test.h"
#include "stream_kernels.h"

namespace planted {
namespace {

using Failing = HostProgram;

TEST_F(Failing, WithoutADriverNothingWorksAndTheCountIsUntouched) {
  const WithVariable with("EMULATOR_FAIL", "no_driver");
  int devices = -1, version = -1;
  EXPECT_CODE(cudaGetDeviceCount(&devices), cudaErrorInsufficientDriver);
  EXPECT_EQ(devices, -1);
  EXPECT_CUDA(cudaDriverGetVersion(&version));
  EXPECT_EQ(version, 0);
  EXPECT_CUDA(cudaRuntimeGetVersion(&version));
  EXPECT_EQ(version, CUDART_VERSION);
  void* data = nullptr;
  EXPECT_CODE(cudaMalloc(&data, 1), cudaErrorInsufficientDriver);
  EXPECT_CODE(add(nullptr, 1, 1, first_), cudaErrorInsufficientDriver);
}

TEST_F(Failing, AnOldDriverIsOlderThanTheRuntime) {
  const WithVariable with("EMULATOR_FAIL", "old_driver");
  int devices = -1, version = -1;
  EXPECT_CODE(cudaGetDeviceCount(&devices), cudaErrorInsufficientDriver);
  EXPECT_CUDA(cudaDriverGetVersion(&version));
  EXPECT_GT(version, 0);
  EXPECT_LT(version, CUDART_VERSION);
}

TEST_F(Failing, ThereMayBeNoDevice) {
  const WithVariable with("EMULATOR_FAIL", "no_device");
  int devices = -1, version = -1;
  EXPECT_CODE(cudaGetDeviceCount(&devices), cudaErrorNoDevice);
  EXPECT_CUDA(cudaDriverGetVersion(&version));
  EXPECT_EQ(version, CUDART_VERSION);
}

TEST_F(Failing, ADeviceMayBeTooOldForTheKernels) {
  float* data = device();
  const WithVariable with("EMULATOR_FAIL", "capability:7.0");
  int major = 0;
  EXPECT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  EXPECT_EQ(major, 7);
  EXPECT_CODE(add(data, kFloats, 1, first_), cudaErrorNoKernelImageForDevice);
}

TEST_F(Failing, AProgramMayBeCompiledForOtherDevices) {
  float* data = device();
  const WithVariable with("EMULATOR_FAIL", "capability:9.0,no_image");
  EXPECT_CODE(add(data, kFloats, 1, first_), cudaErrorNoKernelImageForDevice);
  cudaFuncAttributes attributes{};
  EXPECT_CODE(cudaFuncGetAttributes(&attributes, this), cudaErrorNoKernelImageForDevice);
}

TEST_F(Failing, MemoryMayEndAtAnyAllocation) {
  const WithVariable with("EMULATOR_FAIL", "malloc:2");
  void* data = this;
  device();
  EXPECT_CODE(cudaMalloc(&data, 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(data, this) << "untouched";
  device();
}

TEST_F(Failing, MemoryMayBeSmall) {
  const WithVariable with("EMULATOR_FAIL", "memory:1000");
  size_t available = 0, total = 0;
  void* data = nullptr;
  device();
  EXPECT_CUDA(cudaMemGetInfo(&available, &total));
  EXPECT_EQ(total, 1000u);
  EXPECT_EQ(available, 600u);
  EXPECT_CODE(cudaMalloc(&data, 601), cudaErrorMemoryAllocation);
  pinned(0, 1000);
  EXPECT_CUDA(cudaMalloc(&data, 600));
  EXPECT_CUDA(cudaFree(data));
}

TEST_F(Failing, ALaunchMayBeRefused) {
  float* data = device();
  const WithVariable with("EMULATOR_FAIL", "launch:2");
  EXPECT_CUDA(add(data, kFloats, 1, first_));
  EXPECT_EQ(add(data, kFloats, 1, first_), cudaErrorLaunchOutOfResources);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorLaunchOutOfResources);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchOutOfResources);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "reported once";
  EXPECT_CUDA(add(data, kFloats, 1, first_));
}

// As after an illegal access: every call fails from then on, only releasing still releases.
TEST_F(Failing, AKernelMayBreakTheDevice) {
  for (const char* mode : kStreamModes) {
    const WithVariable with_mode("EMULATOR_STREAMS", mode);
    float *data = device(), *more = device();
    {
      const WithVariable with("EMULATOR_FAIL", "fault:1");
      EXPECT_CUDA(add(data, kFloats, 1, first_)) << "a launch does not wait for its kernel";
      EXPECT_EQ(cudaStreamSynchronize(first_), cudaErrorIllegalAddress);
      EXPECT_EQ(cudaMemsetAsync(data, 0, kBytes, second_), cudaErrorIllegalAddress);
      EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
      EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress) << "for good";
      EXPECT_EQ(cudaFree(more), cudaErrorIllegalAddress);
      forget_device(more);
    }
    EXPECT_CUDA(cudaStreamSynchronize(first_)) << "a new variable is a new device";
    cudaGetLastError();
  }
}

TEST_F(Failing, AnUnknownFailureIsAnErrorOfUsage) {
  for (const char* text : {"earthquake", "malloc", "malloc:many", "capability:9", "launch:1,fault"}) {
    const WithVariable with("EMULATOR_FAIL", text);
    EXPECT_NE(fault([] { cudaGetLastError(), cudaDeviceSynchronize(); }).find("emulator: EMULATOR_FAIL: '"),
              std::string::npos)
        << text;
  }
}

TEST_F(Failing, DevicesAreAsManyAsAskedFor) {
  const WithVariable with("EMULATOR_DEVICES", "2");
  int devices = 0, current = -1;
  EXPECT_CUDA(cudaGetDeviceCount(&devices));
  EXPECT_EQ(devices, 2);
  EXPECT_CUDA(cudaSetDevice(1));
  EXPECT_CUDA(cudaGetDevice(&current));
  EXPECT_EQ(current, 1);
  EXPECT_CODE(cudaSetDevice(2), cudaErrorInvalidDevice);
  EXPECT_CUDA(cudaSetDevice(0));
}

TEST_F(Failing, PropertiesAndAttributesAgree) {
  cudaDeviceProp properties{};
  int value = 0, blocks = 0;
  EXPECT_CUDA(cudaGetDeviceProperties(&properties, 0));
  EXPECT_EQ(properties.major, 8);
  EXPECT_CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  EXPECT_EQ(value, 163 << 10);
  EXPECT_EQ(properties.sharedMemPerBlockOptin, size_t{163} << 10);
  const auto* kernel = reinterpret_cast<const void*>(&add);
  EXPECT_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 256, size_t{80} << 10));
  EXPECT_EQ(blocks, 2);
  EXPECT_CODE(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (163 << 10) + 1),
              cudaErrorInvalidValue);
  const WithVariable with("EMULATOR_FAIL", "capability:9.0");
  EXPECT_CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  EXPECT_EQ(value, 227 << 10);
}

}  // namespace
}  // namespace planted
