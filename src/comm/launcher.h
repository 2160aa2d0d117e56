// What started this process, as its environment says, before and without MPI.
#pragma once

#include <optional>

namespace mhmoe::comm {

// By mpirun, or by a scheduler that speaks MPI's start-up protocols.
bool launched();
// The ranks of the job, where the environment tells: MPI alone knows in some.
std::optional<int> launched_ranks();
// Throws Error(kDevice) where srun started several processes that MPI cannot bring together.
void check_launcher();

}  // namespace mhmoe::comm
