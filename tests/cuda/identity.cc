// The emulated build's answer to src/cuda/identity.cc.
#include "cuda/identity.h"

#include "core/log.h"
#include "emulator/limits.h"

namespace mhmoe::cuda {

const char* backend_name() {
  return "emulated";
}

std::string context_name(int /*ordinal*/) {
  log::warning("the emulated device shows what CUDA kernels compute; {}", emulator::limits());
  return "emulated CUDA (correctness only)";
}

}  // namespace mhmoe::cuda
