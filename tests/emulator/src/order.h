// Which of several threads, or blocks, runs next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace emulator {

constexpr unsigned kWarpLanes = 32, kMaxWarps = 32;

class Order {
 public:
  // From EMULATOR_ORDER. `launch` numbers the grids, so that random orders differ between them.
  static Order from_environment(uint64_t launch);

  // The next thread out of bit sets of those that can run, one a warp; `current` ran last. Nothing if none can.
  std::optional<unsigned> next_thread(unsigned current, const std::array<uint32_t, kMaxWarps>& ready, unsigned warps);
  unsigned first_thread(unsigned threads);
  // A permutation of [0, blocks).
  std::vector<size_t> blocks(size_t blocks);
  // Whether a thread that completes a barrier may have to let others go first.
  bool yields() const { return kind_ == Kind::kRandom; }

 private:
  enum class Kind : uint8_t { kForward, kReversed, kRandom };

  std::optional<unsigned> next_forward(unsigned current, const std::array<uint32_t, kMaxWarps>& ready, unsigned warps);
  std::optional<unsigned> next_reversed(unsigned current, const std::array<uint32_t, kMaxWarps>& ready, unsigned warps);
  std::optional<unsigned> next_random(const std::array<uint32_t, kMaxWarps>& ready, unsigned warps);
  uint64_t random();

  Kind kind_ = Kind::kForward;
  uint64_t state_ = 0;
};

}  // namespace emulator
