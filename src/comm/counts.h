// MPI counts in int; tensors may have more elements.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "core/error.h"

namespace mhmoe::comm {

inline constexpr int64_t kLargestCount = std::numeric_limits<int>::max();

// what: for the message.
inline int int_count(int64_t count, std::string_view what) {
  MHMOE_CHECK(count >= 0 && count <= kLargestCount, "[{}] {} does not fit the counts of MPI, at most {}", what, count,
              kLargestCount);
  return static_cast<int>(count);
}

// `total` as `chunks` of `chunk`, and a rest that is smaller than that.
struct Chunks {
  int64_t chunk = 0, chunks = 0, rest = 0;
};

// Whole if it is at most `largest`, else in chunks of a power of two.
inline Chunks chunks_of(int64_t total, int64_t largest) {
  if (total <= largest) return {.chunk = total, .chunks = 1, .rest = 0};
  int64_t chunk = 1;
  while (chunk <= largest / 2) chunk *= 2;
  return {.chunk = chunk, .chunks = total / chunk, .rest = total % chunk};
}

}  // namespace mhmoe::comm
