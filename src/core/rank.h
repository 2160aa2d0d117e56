// This process's place in a job, as its launcher says in the environment, before and without MPI.
#pragma once

#include "core/api.h"

namespace mhmoe {

// 0 for a process that was started alone.
MHMOE_API int process_rank();
// Among the processes of this machine.
MHMOE_API int local_rank();

}  // namespace mhmoe
