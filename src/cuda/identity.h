// What this build of the CUDA backend is called. The emulated build links another identity.cc (tests/cuda).
#pragma once

#include <string>

namespace mhmoe::cuda {

const char* backend_name();
// The name a person sees for the device: "cuda:0 NVIDIA H100".
std::string context_name(int ordinal);
// The kind of device alone: "NVIDIA H100".
std::string device_model(int ordinal);

}  // namespace mhmoe::cuda
