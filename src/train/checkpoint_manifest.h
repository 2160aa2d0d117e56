// manifest.json of a checkpoint: what it is of, and the checksum of every tensor, every file and itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace mhmoe::train {

inline constexpr int64_t kCheckpointFormatVersion = 1;

struct Manifest {
  struct Tensor {  // f32
    std::string file;
    std::vector<int64_t> shape;
    uint64_t xxh3 = 0;  // of its bytes, XXH3-64
    bool operator==(const Tensor&) const = default;
  };
  struct File {
    int64_t bytes = 0;
    uint64_t xxh3 = 0;
  };

  std::string mhmoe_version;  // that wrote it
  std::string run_id;
  int64_t step = 0;
  std::string config;  // JSON text as json::to_text gives it
  json::Value state;
  std::map<std::string, Tensor> tensors;
  std::map<std::string, File> files;  // by name: KIND-00001-of-00001.safetensors, KIND model or optimizer
};

// What this build writes as Manifest::mhmoe_version.
std::string_view mhmoe_version();

// JSON text whose last member is the checksum of all text before it.
std::string format_manifest(const Manifest& manifest);

// `path` is named in errors. Throws Error(kBadData), Error(kPermission) for file names that lead out of the checkpoint.
Manifest parse_manifest(const std::string& path, std::string_view text);

}  // namespace mhmoe::train
