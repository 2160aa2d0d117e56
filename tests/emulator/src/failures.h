// Errors on demand, so that a program's answers to them can be tested. EMULATOR_FAIL is a list with commas of:
//   no_driver       no driver is installed: the device count is refused and left as it was, the driver's version is 0
//   old_driver      the driver is older than the runtime
//   no_device       a driver without devices
//   capability:M.m  the devices' compute capability (default 8.0); kernels do not start below 8.0
//   no_image        the program was compiled for other devices: kernels do not start, nor tell their attributes
//   malloc:N        the N-th cudaMalloc (from 1) after this variable was set finds no memory
//   memory:BYTES    the devices have so much memory
//   launch:N        the N-th kernel launch is refused for want of resources
//   fault:N         the N-th kernel accesses an illegal address: the device is broken from then on
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace emulator {

struct Failures {
  bool no_driver = false, old_driver = false, no_device = false, no_image = false;
  int major = 8, minor = 0;
  uint64_t malloc = 0, launch = 0, fault = 0;  // 0: none
  std::optional<size_t> memory;

  // Since the variable changed.
  uint64_t mallocs = 0, launches = 0;
};

// As the environment says now. Throws Fault on what it does not know.
Failures& failures();

}  // namespace emulator
