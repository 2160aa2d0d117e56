// What a run's configuration says about the exchange of routed rows.
#pragma once

#include <vector>

#include "comm/groups.h"
#include "train/run_config.h"

namespace mhmoe::train {

// nodes: of every rank of the job.
comm::GroupOptions group_options(const RunConfig& config, DType compute, const comm::Layout& layout,
                                 std::vector<int> nodes);

}  // namespace mhmoe::train
