// What the emulator throws: the kernel or the program did what a device would not survive, or asked for what the
// emulator cannot do.
#pragma once

#include <stdexcept>
#include <string>

namespace emulator {

class Fault : public std::runtime_error {
 public:
  explicit Fault(const std::string& what) : std::runtime_error("emulator: " + what) {}
};

}  // namespace emulator
