// What the tests of many ranks share: tensors whose values tell rank and index.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "comm/job.h"
#include "core/tensor.h"

namespace mhmoe::comm {

inline constexpr int kRanks = 4;

// Elements of any type, made of and read back as whole numbers, which all types hold exactly up to 256.
class Values {
 public:
  Values(DType dtype, int64_t count) : dtype_(dtype), bytes_(static_cast<size_t>(count) * size_of(dtype) + 1, 0xcd) {
    count_ = count;
  }

  Tensor tensor() { return {bytes_.data(), dtype_, {count_}}; }
  Tensor rows(int64_t width) { return {bytes_.data(), dtype_, {count_ / width, width}}; }
  void set(int64_t i, int value) {
    switch (dtype_) {
      case DType::kF32:
        return write(i, static_cast<float>(value));
      case DType::kBF16:
        return write(i, bfloat16(static_cast<float>(value)));
      case DType::kI32:
        return write(i, int32_t{value});
      default:
        return write(i, static_cast<uint8_t>(value));
    }
  }
  int get(int64_t i) const {
    switch (dtype_) {
      case DType::kF32:
        return static_cast<int>(read<float>(i));
      case DType::kBF16:
        return static_cast<int>(static_cast<float>(read<bfloat16>(i)));
      case DType::kI32:
        return read<int32_t>(i);
      default:
        return read<uint8_t>(i);
    }
  }
  int64_t count() const { return count_; }
  bool untouched_behind() const { return bytes_.back() == 0xcd; }

 private:
  template <class T>
  void write(int64_t i, T value) {
    std::memcpy(bytes_.data() + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
  }
  template <class T>
  T read(int64_t i) const {
    T value;
    std::memcpy(&value, bytes_.data() + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    return value;
  }

  DType dtype_;
  int64_t count_ = 0;
  std::vector<uint8_t> bytes_;
};

// Element i of rank's tensor, small enough for every type.
inline int value_of(int rank, int64_t i) {
  return static_cast<int>((rank * 37 + i * 11) % 120);
}

inline std::vector<int> ranks_from(int first, int last) {
  std::vector<int> ranks(static_cast<size_t>(last - first));
  std::iota(ranks.begin(), ranks.end(), first);
  return ranks;
}

// The groups that this rank is in: all, one half, every second, itself.
inline std::vector<std::vector<int>> groups_of(int rank) {
  const int half = rank / 2 * 2, odd = rank % 2;
  return {ranks_from(0, kRanks), ranks_from(half, half + 2), {odd, odd + 2}, {rank}};
}

}  // namespace mhmoe::comm
