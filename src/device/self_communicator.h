// The group of one: what a process started alone communicates with.
#pragma once

#include <memory>

#include "device/communicator.h"
#include "device/context.h"

namespace mhmoe {

// rank: this process's, of the job. Every call is done, by copies on the compute stream, when it returns; nothing
// counts as traffic. ctx must outlive it.
std::unique_ptr<Communicator> MHMOE_API make_self_communicator(Context& ctx, int rank = 0);

}  // namespace mhmoe
