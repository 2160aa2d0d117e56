// The JSON header of a safetensors file, checked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace mhmoe {

struct SafetensorsHeader {
  static constexpr size_t kMaxBytes = size_t{8} << 20;
  static constexpr size_t kMaxTensors = 65'536;
  static constexpr size_t kMaxNameBytes = 512;

  struct Entry {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    size_t begin = 0;  // bytes from the end of the header
    size_t end = 0;
  };

  std::vector<Entry> entries;  // by offset
  std::map<std::string, std::string> metadata;
};

// Every rule of SafetensorsFile; `data_bytes` is what the file holds behind its header. Throws Error(kBadData).
SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view text, size_t data_bytes);

// Compact JSON, padded with spaces to a multiple of 8 bytes.
std::string format_safetensors_header(const SafetensorsHeader& header);

}  // namespace mhmoe
