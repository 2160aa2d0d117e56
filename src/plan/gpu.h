// What GPUs can do at most, by their makers' data sheets.
#pragma once

#include <cstdint>
#include <string_view>

#include "plan/speeds.h"

namespace mhmoe::plan {

struct Gpu
    : Speeds {  // bf16: dense, tensor cores with f32 sums; f32: without tensor cores, products of f32 stay f32 here
  std::string_view key;   // as --gpu takes it
  std::string_view name;  // as tables show it; the device's own name holds name_part
  std::string_view name_part;
  double memory_bytes;
  int64_t multiprocessors;
  // Each way, of one GPU: to the GPUs of its node, and to other nodes by its share of the usual machine's adapters.
  double inside_bytes_per_second, between_bytes_per_second;
};

// Throws Error(kUsage) for a key that is not in the table.
const Gpu& find_gpu(std::string_view key);
// The GPU whose name part the device's name holds; null if none does.
const Gpu* gpu_of_device(std::string_view device_name);

}  // namespace mhmoe::plan
