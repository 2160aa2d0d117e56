// Vectors of the compiler's, as wide as the processor's registers; see tiles.h.
#pragma once

#include <cstring>
#include <type_traits>

#include "cpu/tiles.h"

namespace mhmoe::cpu {

template <class Element>
using VectorOf __attribute__((vector_size(kVectorFloats * sizeof(float)))) = Element;
using Floats = VectorOf<float>;
using Ints = VectorOf<int32_t>;
template <class U>
using VectorOfUnits = std::conditional_t<std::is_same_v<U, float>, Floats, Ints>;

template <class Vector>
inline Vector load(const void* from) {
  Vector out;
  std::memcpy(&out, from, sizeof(out));
  return out;
}

}  // namespace mhmoe::cpu
