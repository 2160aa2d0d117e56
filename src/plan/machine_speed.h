// What this machine reaches at its best: the bandwidth of its memory as STREAM measures it, and with it the speeds that
// floors are computed from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/backend.h"
#include "plan/speeds.h"

namespace mhmoe::plan {

// Bytes a second: those that a loop reads and writes by its text. A plain store to memory reads the line first, which
// does not count, so scale and triad show less than the memory moves. copy is the C library's, whose stores go past the
// caches at such sizes.
struct MemorySpeed {
  std::string loop;  // "read", "copy", "scale", "triad"; of a device that is no CPU, "copy" alone
  double best = 0, median = 0;
  int64_t runs = 0;
};

// Larger than the caches of most machines by far.
inline constexpr int64_t kArrayBytes = int64_t{256} << 20;

// On three arrays of so many bytes; loops in turn, at least twice, until the seconds are over.
std::vector<MemorySpeed> measure_memory(const Backend& backend, int64_t array_bytes, double seconds);

// The best of measure_memory and of large products, in a second or two. bf16 products are measured where `compute` is
// bf16, else taken to be as fast as f32.
Speeds measure_speeds(const Backend& backend, DType compute);

}  // namespace mhmoe::plan
