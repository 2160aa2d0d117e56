// Running a kernel.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace emulator {

// Runs `body` once for every thread of a grid that is possible.
void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& body);

}  // namespace emulator
