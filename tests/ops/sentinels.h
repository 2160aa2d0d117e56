// Tensors of tests, each between two runs of sentinel bytes that no op may change.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "device/context.h"

namespace mhmoe::test {

// Not-a-number as f32 and as bf16, so that reading a sentinel shows too; as i32 no index and not the -1 of "none".
constexpr uint16_t kSentinel = 0xfff1;

class Sentinels {
 public:
  // From the context's step arena, aligned as arenas align, or `shift` elements further. Its elements are sentinels too
  // until they are written.
  Tensor allocate(Context& ctx, DType dtype, std::initializer_list<int64_t> dims, int64_t shift = 0) {
    const Tensor wanted(nullptr, dtype, dims, ctx.kind());
    const auto payload = static_cast<int64_t>(wanted.bytes());
    const auto before = kGuard + shift * static_cast<int64_t>(size_of(dtype));
    // The payload is followed by whole sentinels and, where its size is odd, half of one.
    const Tensor block = ctx.step().allocate("test", DType::kU8, {before + payload + kGuard});
    if (!ctx.sizing()) ctx.upload(block, pattern(0, block.count()).data());
    guards_.push_back({block.slice(0, before), 0, wanted.describe() + " before its begin"});
    guards_.push_back({block.slice(before + payload, kGuard), before + payload, wanted.describe() + " behind its end"});
    return {static_cast<std::byte*>(block.data) + before, dtype, dims, ctx.kind()};
  }

  // Every sentinel is what it was. Waits for the device.
  void check(Context& ctx) const {
    for (const Guard& guard : guards_) {
      std::vector<uint8_t> found(guard.bytes.bytes());
      ctx.download(found.data(), guard.bytes);
      const std::vector<uint8_t> expected = pattern(guard.offset, guard.bytes.count());
      for (size_t i = 0; i < found.size(); ++i) {
        if (found[i] == expected[i]) continue;
        ADD_FAILURE() << "somebody wrote outside of a tensor: " << guard.where << ", byte " << i << " of the sentinels";
        break;
      }
    }
  }

 private:
  static constexpr int64_t kGuard = 1024;  // bytes; a multiple of the arena's alignment

  struct Guard {
    Tensor bytes;
    int64_t offset;  // in the block
    std::string where;
  };

  static std::vector<uint8_t> pattern(int64_t offset, int64_t count) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) bytes[i] = (offset + i) % 2 == 0 ? kSentinel & 0xff : kSentinel >> 8;
    return bytes;
  }

  std::vector<Guard> guards_;
};

}  // namespace mhmoe::test
