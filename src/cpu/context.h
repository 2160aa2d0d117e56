// The CPU as a device.
#pragma once

#include <memory>

#include "device/context.h"

namespace mhmoe::cpu {

// Named "cpu (N threads)" after the number of threads at this moment.
std::unique_ptr<Context> create_context(const ops::KernelTable& kernels);

}  // namespace mhmoe::cpu
