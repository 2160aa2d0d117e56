#include "cpu/backend.h"

#include "cpu/context.h"
#include "cpu/levels.h"
#include "cpu/product.h"

namespace mhmoe::cpu {

const Backend& backend() {
  static const Backend kBackend = {
      .name = "cpu",
      .kind = DeviceKind::kCpu,
      .kernels = level().kernels,
      .create_context = [](int /*ordinal*/) { return create_context(level().kernels, level().name); },
      .create_communicator = nullptr,
      .unusable_reason = unusable_reason,
      .prefers_bf16 = [](int /*ordinal*/) { return native_bf16(); },
      .nccl_version = nullptr,
  };
  return kBackend;
}

}  // namespace mhmoe::cpu
