// A model's parameters, and what is laid out like them, as safetensors under their public names.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nn/parameters.h"

namespace mhmoe::nn {

// A vector of the parts that this rank owns, laid out like ParameterStore::owned_pieces, whose tensors are stored as
// prefix + the part's name.
struct OwnedVector {
  std::string prefix;
  Tensor owned;  // f32 [owned_count()]
};

// Fills this rank's shards of the vectors from `files`, which together hold exactly the parts of the whole model (F32
// or F64, of exactly the part's shape). Throws Error(kBadData) naming the files and every missing, unexpected and
// ill-shaped tensor; then nothing was changed. Tensors are read one after another into the same memory.
void load_owned_vectors(Context& ctx, const ParameterStore& parameters, std::span<const OwnedVector> vectors,
                        std::span<const SafetensorsReader> files);
// The values of this rank's parts, and its masters, by names without prefix.
void load_parameters(Context& ctx, ParameterStore& parameters, std::span<const SafetensorsReader> files);

// Views of the parts of `values`, host memory with those of the whole model at their global offsets.
std::vector<NamedTensor> name_parts(const ParameterStore& parameters, float* values, const std::string& prefix = "");

}  // namespace mhmoe::nn
