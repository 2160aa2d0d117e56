// How much memory a run takes, learnt before the first step by running one without computing.
#pragma once

#include <cstddef>

#include "comm/groups.h"
#include "device/context.h"
#include "train/run_config.h"

namespace mhmoe::train {

struct MemoryNeed {
  size_t state_bytes = 0;  // parameters, gradients, optimizer
  size_t step_bytes = 0;   // the most that a training or validation step holds at a time
  // The same by the names of allocations, at the moment of the peak.
  Arena::BytesByName state_by_name, step_by_name;
};

// A sizing pass over the model's setup, one training step and one validation micro-batch of each kind.
// config.model.vocab_size must be filled in. kernels: the backend's; null leaves out their scratch. layout: what a rank
// of it needs, as long as experts' rows are evenly spread. options: as the groups are made with. observer: sees the
// work, where there is one.
MemoryNeed measure_memory(const RunConfig& config, DeviceKind device, const ops::KernelTable* kernels, DType compute,
                          const comm::Layout& layout = {}, const comm::GroupOptions& options = {},
                          WorkObserver* observer = nullptr);

// Makes the arenas of ctx that large, so that the steps allocate nothing. Before anything is allocated in them.
void reserve_memory(Context& ctx, const MemoryNeed& need);

}  // namespace mhmoe::train
