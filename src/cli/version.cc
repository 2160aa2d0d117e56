#include <oneapi/dnnl/dnnl.h>

#include "cli/commands.h"
#include "cpu/backend.h"

namespace mhmoe::cli {

std::string version_text() {
  const dnnl_version_t* dnnl = dnnl_version();
  return fmt::format(
      "mhmoe {}\nbuild: {}\noneDNN {}.{}.{}\nfloating point: round to nearest, denormals kept\ndevice: {}",
      MHMOE_VERSION, MHMOE_BUILD_OPTIONS, dnnl->major, dnnl->minor, dnnl->patch,
      open_backend("auto", cpu::backend()).reason);
}

}  // namespace mhmoe::cli
