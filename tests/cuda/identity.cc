// The emulated build's answer to src/cuda/identity.cc.
#include "cuda/identity.h"

#include "core/log.h"
#include "emulator/limits.h"

namespace mhmoe::cuda {

const char* backend_name() {
  return "emulated";
}

std::string context_name(int /*ordinal*/) {
  // Once a process: a run opens more than one context.
  static const bool warned = [] {
    log::warning("the emulated device shows what CUDA kernels compute; {}", emulator::limits());
    return true;
  }();
  static_cast<void>(warned);
  return "emulated CUDA (correctness only)";
}

std::string device_model(int /*ordinal*/) {
  return "emulated";
}

}  // namespace mhmoe::cuda
