// What no green run shows.
#pragma once

namespace emulator {

// One line, for the end of a test run.
inline const char* limits() {
  return "the emulator cannot see: speed, occupancy, bank conflicts, coalescing; a device's weak memory order; its own "
         "rounding (tensor cores, fast mathematics); what needs several blocks to run at once. Races between blocks "
         "show only under ThreadSanitizer, overruns of static shared memory only in clang's AddressSanitizer builds";
}

}  // namespace emulator
