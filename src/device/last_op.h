// The op that was started last: a device reports a kernel's fault later, from another call.
#pragma once

#include <string_view>

#include "core/api.h"

namespace mhmoe {

// name: of static storage.
MHMOE_API void set_last_op(std::string_view name);
// Empty before the first.
MHMOE_API std::string_view last_op();

// "RmsNormForward" for mhmoe::ops::RmsNormForward.
template <class T>
constexpr std::string_view type_name() {
  std::string_view name = __PRETTY_FUNCTION__;
  name.remove_prefix(name.find("T = ") + 4);
  name = name.substr(0, name.find_first_of(";]"));
  return name.substr(name.rfind(':') + 1);
}

}  // namespace mhmoe
