// A model's parameters, and what is laid out like them, as safetensors under their public names.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nn/parameters.h"

namespace mhmoe::nn {

// A flat vector laid out like ParameterStore's, whose parts are stored as prefix + the part's name.
struct FlatVector {
  std::string prefix;
  Tensor flat;  // f32
};

// Fills the vectors from `files`, which together hold exactly their parts (F32 or F64, of exactly the part's shape).
// Throws Error(kBadData) naming the files and every missing, unexpected and ill-shaped tensor; then nothing was
// changed.
void load_flat_vectors(Context& ctx, const ParameterStore& parameters, std::span<const FlatVector> vectors,
                       std::span<const SafetensorsFile> files);
// The masters, by names without prefix; refreshes the compute copies.
void load_parameters(Context& ctx, ParameterStore& parameters, std::span<const SafetensorsFile> files);

// Views of the parts of `values`, host memory laid out like the store's flat vectors.
std::vector<NamedTensor> name_parts(const ParameterStore& parameters, float* values, const std::string& prefix = "");

}  // namespace mhmoe::nn
