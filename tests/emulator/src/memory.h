// Device memory and pinned host memory. Each allocation has pages of its own between pages that nobody may touch, ends
// at the end of its last page (but for alignment), holds garbage at first, and can be touched by nobody once it is
// freed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace emulator {

enum class MemoryKind : uint8_t { kDevice, kPinned };

struct Allocation {
  std::byte* data = nullptr;
  size_t bytes = 0;
  MemoryKind kind = MemoryKind::kDevice;
  uint64_t number = 0;
  bool freed = false;
  std::byte* pages = nullptr;  // with the guards
  size_t mapped_bytes = 0;

  bool holds(const void* address) const {
    const auto* at = static_cast<const std::byte*>(address);
    return at >= data && at < data + bytes;
  }
  std::string describe() const;
};

class Memory {
 public:
  // Null if the machine, or EMULATOR_FAIL, has no more.
  Allocation* allocate(size_t bytes, MemoryKind kind);
  // A pointer that is no allocation of this kind, or was freed before, is refused as CUDA refuses it, and a finding.
  cudaError_t release(const char* call, const void* data, MemoryKind kind);
  // The allocation, freed or not, that the address lies in; null: memory that CUDA does not know.
  const Allocation* find(const void* address) const;
  // The numbers of the allocations that any of the addresses lies in. Throws Fault if one was freed.
  std::vector<uint64_t> allocations_at(const char* what, const std::vector<const void*>& addresses) const;
  // What lies at an address that nobody may touch; empty if that is none of CUDA's.
  std::string describe_forbidden(const void* address) const;
  // Throws Fault unless the allocation with this number is still there.
  void expect_alive(const char* what, uint64_t number) const;

  size_t device_bytes() const { return device_bytes_; }
  static size_t total_bytes();
  size_t available_bytes() const;

 private:
  void retire(Allocation& allocation);

  std::map<uintptr_t, Allocation> by_address_;
  std::map<uint64_t, uintptr_t> alive_;
  std::deque<uintptr_t> freed_;
  size_t device_bytes_ = 0;
};

Memory& memory();

}  // namespace emulator
