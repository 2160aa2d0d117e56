// What a rank of a job communicates with in a sizing pass: shapes are checked and bytes counted, nothing moves.
#pragma once

#include <memory>
#include <vector>

#include "device/communicator.h"

namespace mhmoe {

// rank: of the job, one of `ranks`, the group.
std::unique_ptr<Communicator> MHMOE_API make_sizing_communicator(int rank, std::vector<int> ranks);

}  // namespace mhmoe
