#include "nccl/reduction.h"

#include <algorithm>
#include <bit>
#include <cstdint>

namespace emulator {
namespace {

struct Bf16 {
  uint16_t bits;
  explicit Bf16(float value) {
    const auto word = std::bit_cast<uint32_t>(value);
    bits = static_cast<uint16_t>(value != value ? word >> 16 | 0x40u : (word + 0x7fffu + (word >> 16 & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

template <class T, class Wide>
void reduce_as(ncclRedOp_t operation, void* total, const void* next, size_t count) {
  auto* to = static_cast<T*>(total);
  const auto* from = static_cast<const T*>(next);
  for (size_t i = 0; i < count; ++i) {
    const auto a = static_cast<Wide>(to[i]), b = static_cast<Wide>(from[i]);
    switch (operation) {
      case ncclProd:
        to[i] = T(a * b);
        break;
      case ncclMax:
        to[i] = T(std::max(a, b));
        break;
      case ncclMin:
        to[i] = T(std::min(a, b));
        break;
      default:
        to[i] = T(a + b);
    }
  }
}

template <class T>
void divide(void* total, size_t count, int ranks) {
  auto* to = static_cast<T*>(total);
  for (size_t i = 0; i < count; ++i) to[i] = T(static_cast<float>(to[i]) / static_cast<float>(ranks));
}

}  // namespace

size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclFloat32:
      return 4;
    case ncclInt64:
      return 8;
    default:
      return 0;
  }
}

const char* name_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
      return "i8";
    case ncclUint8:
      return "u8";
    case ncclBfloat16:
      return "bf16";
    case ncclInt32:
      return "i32";
    case ncclFloat32:
      return "f32";
    case ncclInt64:
      return "i64";
    default:
      return "an unknown type";
  }
}

const char* name_of(ncclRedOp_t operation) {
  constexpr const char* kNames[] = {"sum", "product", "maximum", "minimum", "average"};
  return operation < ncclNumOps ? kNames[operation] : "an unknown operation";
}

bool can_reduce(ncclDataType_t type, ncclRedOp_t operation) {
  if (operation < 0 || operation >= ncclNumOps) return false;
  const bool floating = type == ncclFloat32 || type == ncclBfloat16;
  return floating || (operation != ncclAvg && (type == ncclInt32 || type == ncclInt64));
}

void reduce(ncclDataType_t type, ncclRedOp_t operation, void* total, const void* next, size_t count) {
  switch (type) {
    case ncclBfloat16:
      return reduce_as<Bf16, float>(operation, total, next, count);
    case ncclInt32:
      return reduce_as<int32_t, int32_t>(operation, total, next, count);
    case ncclInt64:
      return reduce_as<int64_t, int64_t>(operation, total, next, count);
    default:
      return reduce_as<float, float>(operation, total, next, count);
  }
}

void finish_reduction(ncclDataType_t type, ncclRedOp_t operation, void* total, size_t count, int ranks) {
  if (operation != ncclAvg) return;
  type == ncclBfloat16 ? divide<Bf16>(total, count, ranks) : divide<float>(total, count, ranks);
}

}  // namespace emulator
