// How ranks find each other.
#pragma once

#include <chrono>

#include "nccl/exchange.h"

namespace emulator {

// Names this process as the one where the others report.
ncclUniqueId make_unique_id();

// Returns when all `size` ranks with this id are here; null when they do not fit together. Throws Fault when some do
// not come within EMULATOR_NCCL_SECONDS.
std::shared_ptr<Clique> join(const ncclUniqueId& id, int size, int rank);

// The ranks of the same colour; null for a rank without one. All ranks of the clique must call.
std::shared_ptr<Clique> split(const Clique& clique, int colour, int key);

// The time after which a rank is given up.
std::chrono::steady_clock::duration patience();

}  // namespace emulator
