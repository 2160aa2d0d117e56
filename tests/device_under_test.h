// The device that tests run on: MHMOE_TEST_DEVICE, "cpu" by default.
#pragma once

#include <cstdlib>
#include <string_view>

#include "cpu/backend.h"
#include "device/backend.h"

namespace mhmoe::test {

inline std::string_view device_under_test() {
  const char* device = std::getenv("MHMOE_TEST_DEVICE");
  return device == nullptr ? "cpu" : device;
}

inline const Backend& backend_under_test() {
  return *open_backend(device_under_test(), cpu::backend()).backend;
}

}  // namespace mhmoe::test
