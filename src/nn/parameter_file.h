// A model's parameters as a safetensors file under their public names.
#pragma once

#include <map>
#include <string>

#include "core/safetensors.h"
#include "nn/parameters.h"

namespace mhmoe::nn {

// Fills every parameter from `file` (F32 or F64 tensors of exactly the parameter's shape) and refreshes the compute
// copies. Throws Error(kBadData) naming the file and every missing, unexpected and ill-shaped tensor; then nothing was
// changed.
void load_parameters(Context& ctx, ParameterStore& parameters, const SafetensorsFile& file);

// Writes the f32 masters; whole or not at all (see write_safetensors).
void save_parameters(Context& ctx, const ParameterStore& parameters, const std::string& path,
                     const std::map<std::string, std::string>& metadata = {});

}  // namespace mhmoe::nn
