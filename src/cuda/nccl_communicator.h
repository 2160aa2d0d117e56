// A Communicator over NCCL, on the context's communication stream.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "device/communicator.h"
#include "device/context.h"
#include "device/job.h"

namespace mhmoe::cuda {

// Backend::create_communicator. NCCL takes memory of the device for it, so it is made before arenas take that. It must
// outlive recorded work that holds its calls. Throws Error(kDevice) where ranks have different devices, drivers or
// NCCLs.
std::unique_ptr<Communicator> create_communicator(Context& ctx, Job& job, std::span<const int> ranks);

// "2.28.9", of the library that was loaded; "none" where the module was built without.
std::string nccl_version();

}  // namespace mhmoe::cuda
