#include "core/tensor.h"

#include <algorithm>

namespace mhmoe {

Tensor::Tensor(void* data_in, DType dtype_in, std::span<const int64_t> dims_in, DeviceKind device_in)
    : data(data_in), rank(static_cast<int8_t>(dims_in.size())), dtype(dtype_in), device(device_in) {
  MHMOE_CHECK(dims_in.size() <= kMaxRank, "a tensor has at most {} dimensions, found {}", +kMaxRank, dims_in.size());
  std::copy(dims_in.begin(), dims_in.end(), dims.begin());
}

int64_t Tensor::count() const {
  if (rank == 0) return 0;
  int64_t n = 1;
  for (int i = 0; i < rank; ++i) n *= dims[i];
  return n;
}

int64_t Tensor::rows() const {
  if (rank == 0) return 0;
  int64_t n = 1;
  for (int i = 0; i + 1 < rank; ++i) n *= dims[i];
  return n;
}

Tensor Tensor::view(std::initializer_list<int64_t> new_dims) const {
  const Tensor out(data, dtype, new_dims, device);
  MHMOE_CHECK(out.count() == count(), "cannot view {} as {}", describe(), out.describe());
  return out;
}

Tensor Tensor::slice(int64_t begin, int64_t n) const {
  MHMOE_CHECK(begin >= 0 && n >= 0 && begin + n <= count(), "elements [{}, {}) lie outside {}", begin, begin + n,
              describe());
  auto* start = static_cast<std::byte*>(data) + static_cast<size_t>(begin) * size_of(dtype);
  return Tensor(start, dtype, {n}, device);
}

Tensor Tensor::slice_rows(int64_t begin, int64_t n) const {
  return slice(begin * cols(), n * cols()).view({n, cols()});
}

Tensor Tensor::select(int64_t i) const {
  MHMOE_CHECK(rank >= 2 && i >= 0 && i < dims[0], "index {} lies outside {}", i, describe());
  const std::span<const int64_t> rest(dims.data() + 1, static_cast<size_t>(rank) - 1);
  Tensor out(nullptr, dtype, rest, device);
  out.data = static_cast<std::byte*>(data) + static_cast<size_t>(i) * out.bytes();
  return out;
}

bool Tensor::same_shape(const Tensor& other) const {
  return std::ranges::equal(shape(), other.shape());
}

std::string Tensor::describe() const {
  std::string text = fmt::format("{}[", to_string(dtype));
  for (int i = 0; i < rank; ++i) text += fmt::format("{}{}", i ? ", " : "", dims[i]);
  return text + "]";
}

}  // namespace mhmoe
