// The cores of a rank.
#pragma once

#include <string>

namespace mhmoe::comm {

// mpirun binds a rank to one core where there are one or two of them, and the threads of a rank with it. Widens this
// process's mask to its share of the cores that mpirun itself may use, if it has fewer, and sets the number of threads
// to the cores it has, unless OMP_NUM_THREADS says one. What came out, for the log; empty where nothing was changed.
std::string spread_over_cores(int local_rank, int ranks_here);

}  // namespace mhmoe::comm
