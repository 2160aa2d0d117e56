// Elements between memory (f32 or bf16) and registers (always float), one at a time or packed.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "core/tensor.h"

namespace mhmoe::cuda {

// The kernels' type for a host element type.
template <class T>
struct DeviceElement {
  using Type = T;
};
template <>
struct DeviceElement<bfloat16> {
  using Type = __nv_bfloat16;
};

// A tensor's elements for a kernel, its dtype checked; null for an absent tensor. T: float, bfloat16, const float, ...
template <class T>
auto* elements(const Tensor& tensor) {
  using Element = typename DeviceElement<std::remove_const_t<T>>::Type;
  using Pointer = std::conditional_t<std::is_const_v<T>, const Element*, Element*>;
  return tensor.empty() ? Pointer{nullptr}
                        : static_cast<Pointer>(static_cast<void*>(tensor.as<std::remove_const_t<T>>()));
}

__device__ inline float to_float(float value) {
  return value;
}
__device__ inline float to_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

template <class T>
__device__ T from_float(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return __float2bfloat16_rn(value);
  }
}

// The value of an op's optional scale.
__device__ inline float scale_or_one(const float* scale) {
  return scale == nullptr ? 1.0f : *scale;
}

template <int kWidth>
struct Floats {
  float lane[kWidth];
  __device__ float& operator[](int i) { return lane[i]; }
  __device__ float operator[](int i) const { return lane[i]; }
};

// kWidth elements moved by as few memory instructions as possible, at most 16 bytes each.
template <class T, int kWidth>
struct alignas(std::min<size_t>(16, sizeof(T) * kWidth)) Packed {
  T value[kWidth];
};

// source: aligned as Packed<T, kWidth>.
template <int kWidth, class T>
__device__ Floats<kWidth> load(const T* source) {
  const auto packed = *reinterpret_cast<const Packed<T, kWidth>*>(source);
  Floats<kWidth> out;
  for (int i = 0; i < kWidth; ++i) out[i] = to_float(packed.value[i]);
  return out;
}

template <int kWidth, class T>
__device__ void store(T* target, const Floats<kWidth>& values) {
  Packed<T, kWidth> packed;
  for (int i = 0; i < kWidth; ++i) packed.value[i] = from_float<T>(values[i]);
  *reinterpret_cast<Packed<T, kWidth>*>(target) = packed;
}

// Whether load<width> and store<width> fit the first element of each tensor; absent tensors fit.
inline bool aligned_for(int width, std::initializer_list<Tensor> tensors) {
  return std::ranges::all_of(tensors, [width](const Tensor& tensor) {
    const size_t alignment = std::min<size_t>(16, size_of(tensor.dtype) * static_cast<size_t>(width));
    return reinterpret_cast<uintptr_t>(tensor.data) % alignment == 0;
  });
}

// Calls f with the number of elements to move at a time as a constant: kWidth where all tensors begin at addresses that
// allow it, else 1.
template <int kWidth, class F>
void dispatch_aligned(std::initializer_list<Tensor> tensors, F&& f) {
  if (aligned_for(kWidth, tensors)) {
    f(std::integral_constant<int, kWidth>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

// The same for every row of `cols` elements.
template <int kWidth, class F>
void dispatch_width(int64_t cols, std::initializer_list<Tensor> tensors, F&& f) {
  if (cols % kWidth == 0) {
    dispatch_aligned<kWidth>(tensors, f);
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

}  // namespace mhmoe::cuda
