// The optimizer's state of all ranks in one place, for checkpoints.
#pragma once

#include <vector>

#include "device/context.h"
#include "device/job.h"
#include "nn/parameters.h"

namespace mhmoe::train {

// On rank 0 the whole vector, the parts of the model at their global offsets; elsewhere nothing. owned: this rank's
// parts, host memory laid out as ParameterStore::owned_pieces says. All ranks call.
std::vector<float> gather_global(Job& job, const nn::ParameterStore& parameters, const std::vector<float>& owned);

// This rank's owned masters on the host.
std::vector<float> download_masters(Context& ctx, const nn::ParameterStore& parameters);

}  // namespace mhmoe::train
