// Collectives between ranks' host memories, by non-blocking MPI.
#pragma once

#include <memory>

#include "comm/counts.h"
#include "comm/watchdog.h"

namespace mhmoe::comm {

// As Job::create_host_communicator. rank: this one, of the job. largest_count: of elements or bytes in one call of MPI;
// smaller ones are for tests.
std::unique_ptr<Communicator> make_mpi_communicator(std::span<const int> ranks, int rank, Watchdog& watchdog,
                                                    int64_t largest_count = kLargestCount);

}  // namespace mhmoe::comm
