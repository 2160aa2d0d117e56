// The group of one: what a process started alone communicates with.
#pragma once

#include <memory>

#include "device/communicator.h"

namespace mhmoe {

// Rank 0 of 1; a sum over the one rank is what is already there, on any device.
std::unique_ptr<Communicator> MHMOE_API make_self_communicator();

}  // namespace mhmoe
