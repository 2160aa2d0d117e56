// Operations of a warp. Included by simt.h.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/engine.h"

namespace emulator {

template <class T>
uint64_t to_word(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}

// The value lane `source` brought to a shuffle, or one's own where that lane lies outside the segment.
template <class T>
T shuffle(unsigned mask, T value, unsigned source, bool inside) {
  const uint64_t word =
      warp_exchange(WarpOperation::kShuffle, mask, {.word = to_word(value), .source = inside ? source : lane()});
  T out;
  std::memcpy(&out, &word, sizeof(T));
  return out;
}

// combine(combine(x0, x1), x2)... over the lanes of the mask, from the lowest.
template <class T>
T reduce(unsigned mask, T value, uint64_t (*combine)(uint64_t, uint64_t)) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return static_cast<T>(warp_exchange(WarpOperation::kReduce, mask, {.word = to_word(value), .combine = combine}));
}

}  // namespace emulator

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::warp_exchange(emulator::WarpOperation::kSync, mask, {});
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  return emulator::shuffle(mask, value, (lane & ~(segment - 1)) | (static_cast<unsigned>(source) & (segment - 1)),
                           true);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
  return emulator::shuffle(mask, value, source, (source & ~(segment - 1)) <= (lane & ~(segment - 1)));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  return emulator::shuffle(mask, value, lane + delta, (lane & (segment - 1)) + delta < segment);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  return emulator::shuffle(mask, value, lane - delta, (lane & (segment - 1)) >= delta);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t vote = predicate != 0 ? 1 : 0;
  return static_cast<unsigned>(emulator::warp_exchange(emulator::WarpOperation::kBallot, mask, {.word = vote}));
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}

// Which lanes brought the same value.
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(
      emulator::warp_exchange(emulator::WarpOperation::kMatch, mask, {.word = emulator::to_word(value)}));
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* predicate) {
  const bool all = __match_any_sync(mask, value) == mask;
  *predicate = all ? 1 : 0;
  return all ? mask : 0;
}

template <class T>
T __reduce_add_sync(unsigned mask, T value) {
  return emulator::reduce(mask, value, [](uint64_t a, uint64_t b) { return (a + b) & 0xffffffffu; });
}
template <class T>
T __reduce_min_sync(unsigned mask, T value) {
  return emulator::reduce(mask, value,
                          [](uint64_t a, uint64_t b) { return static_cast<T>(b) < static_cast<T>(a) ? b : a; });
}
template <class T>
T __reduce_max_sync(unsigned mask, T value) {
  return emulator::reduce(mask, value,
                          [](uint64_t a, uint64_t b) { return static_cast<T>(a) < static_cast<T>(b) ? b : a; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return emulator::reduce(mask, value, [](uint64_t a, uint64_t b) { return a & b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return emulator::reduce(mask, value, [](uint64_t a, uint64_t b) { return a | b; });
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
  return emulator::reduce(mask, value, [](uint64_t a, uint64_t b) { return a ^ b; });
}

// Which lanes run together is a device's own choice at every instruction: no answer here would show what depends on it.
unsigned __activemask() = delete;
