// A kernel that touches pages between allocations, or of freed ones, ends with a Fault that names them.
#pragma once

namespace emulator {

// From now on. Sanitizers' builds see such accesses themselves.
void watch_illegal_accesses();

}  // namespace emulator
