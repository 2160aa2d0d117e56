// A contiguous, row-major view of memory on one device. Trivially copyable; owns nothing (arenas own).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

#include "core/dtype.h"

namespace mhmoe {

enum class DeviceKind : uint8_t { kCpu, kCuda };

constexpr std::string_view to_string(DeviceKind kind) {
  return kind == DeviceKind::kCpu ? "cpu" : "cuda";
}

struct MHMOE_API Tensor {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  std::array<int64_t, kMaxRank> dims{};
  int8_t rank = 0;
  DType dtype = DType::kF32;
  DeviceKind device = DeviceKind::kCpu;

  Tensor() = default;
  Tensor(void* data, DType dtype, std::span<const int64_t> dims, DeviceKind device = DeviceKind::kCpu);
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> dims, DeviceKind device = DeviceKind::kCpu)
      : Tensor(data, dtype, std::span(dims.begin(), dims.size()), device) {}

  // An absent optional argument of an op; a tensor with zero elements is present all the same.
  bool empty() const { return rank == 0; }
  int64_t count() const;
  size_t bytes() const { return static_cast<size_t>(count()) * size_of(dtype); }
  std::span<const int64_t> shape() const { return {dims.data(), static_cast<size_t>(rank)}; }

  // The tensor seen as a matrix: the last dimension is the columns, all others together the rows.
  int64_t cols() const { return rank == 0 ? 0 : dims[rank - 1]; }
  int64_t rows() const;

  // Typed access; throws (kInternal) when the dtype differs.
  template <class T>
  T* as() const {
    MHMOE_CHECK((dtype == DTypeOf<std::remove_const_t<T>>::value), "tensor {} read as {}", describe(),
                to_string(DTypeOf<std::remove_const_t<T>>::value));
    return static_cast<T*>(data);
  }

  // The same elements under another shape of equal count.
  Tensor view(std::initializer_list<int64_t> new_dims) const;
  // Elements [begin, begin + count) in storage order, as [count].
  Tensor slice(int64_t begin, int64_t count) const;
  // Rows [begin, begin + count) of the matrix view, as [count, cols].
  Tensor slice_rows(int64_t begin, int64_t count) const;
  // Element i of the first dimension, one rank lower.
  Tensor select(int64_t i) const;

  bool same_shape(const Tensor& other) const;
  std::string describe() const;  // "f32[4, 16]"
};

static_assert(std::is_trivially_copyable_v<Tensor>);

}  // namespace mhmoe
