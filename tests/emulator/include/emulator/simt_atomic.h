// Atomic operations and fences. Included by simt.h.
#pragma once

#include <atomic>
#include <type_traits>

#include "emulator/engine.h"

namespace emulator {

// Threads are never pre-empted between two instructions. Atomic all the same: so ThreadSanitizer knows them from plain
// accesses, which race.
template <class T, class F>
T atomic_update(T* address, F&& updated) {
  const std::atomic_ref<T> target(*address);
  T before = target.load(std::memory_order_relaxed);
  while (!target.compare_exchange_weak(before, updated(before), std::memory_order_relaxed)) {
  }
  return before;
}

}  // namespace emulator

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_update(address, [value](T before) { return static_cast<T>(before + value); });
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_update(address, [value](T before) { return static_cast<T>(before - value); });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_update(address, [value](T before) { return before < value ? value : before; });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_update(address, [value](T before) { return value < before ? value : before; });
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_update(address, [value](T before) { return before & value; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_update(address, [value](T before) { return before | value; });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return emulator::atomic_update(address, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}

inline void __threadfence() {
  emulator::memory_fence();
}
inline void __threadfence_block() {
  emulator::memory_fence();
}
inline void __threadfence_system() {
  emulator::memory_fence();
}
