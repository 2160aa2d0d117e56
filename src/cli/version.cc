#include <oneapi/dnnl/dnnl.h>

#include "cli/commands.h"
#include "comm/job.h"
#include "cpu/backend.h"

namespace mhmoe::cli {
namespace {

// Of the CUDA module, whether or not a device answers.
std::string nccl_version() {
  try {
    const Backend* cuda = find_backend("cuda", cpu::backend());
    return cuda == nullptr ? "none" : cuda->nccl_version();
  } catch (const Error&) {  // the device's line says why it cannot be loaded
    return "none";
  }
}

}  // namespace

std::string version_text() {
  const dnnl_version_t* dnnl = dnnl_version();
  return fmt::format(
      "mhmoe {}\nbuild: {}\noneDNN {}.{}.{}\nMPI: {}\nNCCL: {}\nfloating point: round to nearest, denormals kept\n"
      "device: {}",
      MHMOE_VERSION, MHMOE_BUILD_OPTIONS, dnnl->major, dnnl->minor, dnnl->patch, comm::mpi_version(), nccl_version(),
      open_backend("auto", cpu::backend()).reason);
}

}  // namespace mhmoe::cli
