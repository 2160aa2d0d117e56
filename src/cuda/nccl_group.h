// How a group's NCCL communicator comes about: what the ranks tell each other first.
#pragma once

#include <nccl.h>

#include <span>

#include "device/job.h"

namespace mhmoe::cuda {

// The id that the group's first rank made, on all ranks of the group; other groups of the job do the same in the same
// call. Throws Error(kDevice) with a table of the job's ranks where devices, drivers or NCCLs differ.
ncclUniqueId agree_on_id(Job& job, std::span<const int> ranks);

}  // namespace mhmoe::cuda
