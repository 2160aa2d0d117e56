// Copies out of memory maps whose file may shrink or fail at any time.
#pragma once

#include <cstddef>

#include "core/api.h"

namespace mhmoe {

// As memcpy, but false where the file behind the map had no bytes to give, which is a SIGBUS otherwise; part of `out`
// may then be written. The first call installs a handler for the whole process, which passes every other SIGBUS on to
// the handler before it.
[[nodiscard]] MHMOE_API bool guarded_copy(void* out, const void* map, size_t bytes);

}  // namespace mhmoe
