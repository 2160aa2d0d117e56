// The CPU as a device.
#pragma once

#include <memory>
#include <string_view>

#include "device/context.h"

namespace mhmoe::cpu {

// Named "cpu (N threads, LEVEL)" after the number of threads at this moment.
std::unique_ptr<Context> create_context(const ops::KernelTable& kernels, std::string_view level = "kernels of a test");

}  // namespace mhmoe::cpu
