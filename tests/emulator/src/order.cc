#include "order.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <string>
#include <string_view>

#include "emulator/fault.h"
#include "random.h"

namespace emulator {

Order Order::from_environment(uint64_t launch) {
  const char* variable = std::getenv("EMULATOR_ORDER");
  const std::string_view text = variable == nullptr ? "forward" : variable;
  Order order;
  if (text == "forward") return order;
  if (text == "reversed") {
    order.kind_ = Kind::kReversed;
    return order;
  }
  constexpr std::string_view kRandom = "random:";
  uint64_t seed = 0;
  if (text.starts_with(kRandom)) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + kRandom.size(), end, seed);
    if (parsed.ec == std::errc() && parsed.ptr == end) {
      order.kind_ = Kind::kRandom;
      order.state_ = seed + launch * 0x100000001b3u;
      return order;
    }
  }
  throw Fault("EMULATOR_ORDER=" + std::string(text) + ": allowed: forward, reversed, random:SEED");
}

uint64_t Order::random() {
  return emulator::next_random(state_);
}

std::optional<unsigned> Order::next_thread(unsigned current, const std::array<uint32_t, kMaxWarps>& ready,
                                           unsigned warps) {
  switch (kind_) {
    case Kind::kForward:
      return next_forward(current, ready, warps);
    case Kind::kReversed:
      return next_reversed(current, ready, warps);
    case Kind::kRandom:
      return next_random(ready, warps);
  }
  return {};
}

unsigned Order::first_thread(unsigned threads) {
  switch (kind_) {
    case Kind::kForward:
      return 0;
    case Kind::kReversed:
      return threads - 1;
    case Kind::kRandom:
      return static_cast<unsigned>(random() % threads);
  }
  return 0;
}

// Stays in the warp while it can, then goes on to the following ones.
std::optional<unsigned> Order::next_forward(unsigned current, const std::array<uint32_t, kMaxWarps>& ready,
                                            unsigned warps) {
  unsigned warp = current / kWarpLanes;
  const unsigned lane = current % kWarpLanes;
  uint32_t lanes = lane + 1 == kWarpLanes ? 0 : ready[warp] & (~0u << (lane + 1));
  if (lanes == 0) lanes = ready[warp];
  for (unsigned i = 0; lanes == 0 && i < warps; ++i) {
    warp = warp + 1 == warps ? 0 : warp + 1;
    lanes = ready[warp];
  }
  if (lanes == 0) return {};
  return warp * kWarpLanes + static_cast<unsigned>(std::countr_zero(lanes));
}

std::optional<unsigned> Order::next_reversed(unsigned current, const std::array<uint32_t, kMaxWarps>& ready,
                                             unsigned warps) {
  unsigned warp = current / kWarpLanes;
  const unsigned lane = current % kWarpLanes;
  uint32_t lanes = ready[warp] & ((1u << lane) - 1);
  if (lanes == 0) lanes = ready[warp];
  for (unsigned i = 0; lanes == 0 && i < warps; ++i) {
    warp = warp == 0 ? warps - 1 : warp - 1;
    lanes = ready[warp];
  }
  if (lanes == 0) return {};
  return warp * kWarpLanes + kWarpLanes - 1 - static_cast<unsigned>(std::countl_zero(lanes));
}

std::optional<unsigned> Order::next_random(const std::array<uint32_t, kMaxWarps>& ready, unsigned warps) {
  auto warp = static_cast<unsigned>(random() % warps);
  for (unsigned i = 0; ready[warp] == 0 && i < warps; ++i) warp = warp + 1 == warps ? 0 : warp + 1;
  uint32_t lanes = ready[warp];
  if (lanes == 0) return {};
  for (uint64_t skip = random() % static_cast<unsigned>(std::popcount(lanes)); skip > 0; --skip) lanes &= lanes - 1;
  return warp * kWarpLanes + static_cast<unsigned>(std::countr_zero(lanes));
}

std::vector<size_t> Order::blocks(size_t blocks) {
  std::vector<size_t> order(blocks);
  std::iota(order.begin(), order.end(), size_t{0});
  if (kind_ == Kind::kReversed) std::ranges::reverse(order);
  if (kind_ == Kind::kRandom) {
    for (size_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  }
  return order;
}

}  // namespace emulator
