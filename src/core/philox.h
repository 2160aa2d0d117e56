// Counter-based random numbers (Philox4x32-10; Salmon et al., SC 2011): element i of a named stream is a pure function
// of (seed, name, i), whatever the device, the order of drawing or the number of ranks.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/api.h"

namespace mhmoe {

// One block of the generator.
MHMOE_API std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class MHMOE_API Philox {
 public:
  Philox(uint64_t seed, std::string_view stream);

  // Four words for one value of the counter.
  std::array<uint32_t, 4> words(uint64_t counter) const;
  // Element i, uniform in [0, 1), 24 bits.
  float uniform(uint64_t i) const;
  // Element i, standard normal (Box-Muller in double).
  float normal(uint64_t i) const;

 private:
  std::array<uint32_t, 2> key_;
  uint64_t stream_;
};

}  // namespace mhmoe
