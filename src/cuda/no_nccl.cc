// What stands in nccl_communicator.cc's place where NCCL was not found at build time.
#include "cuda/nccl_communicator.h"
#include "device/self_communicator.h"

namespace mhmoe::cuda {

std::unique_ptr<Communicator> create_communicator(Context& ctx, Job& job, std::span<const int> ranks) {
  if (ranks.size() == 1) return make_self_communicator(ctx, job.rank());
  fail(ExitCode::kDevice,
       "{} ranks were started, but this CUDA module was built without NCCL: install NCCL (nccl.h and libnccl, or set "
       "NCCL_HOME), configure again and build it; or start one process",
       job.size());
}

std::string nccl_version() {
  return "none";
}

}  // namespace mhmoe::cuda
