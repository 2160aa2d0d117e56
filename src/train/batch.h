// Token sequences on the host, as the data loader yields them.
#pragma once

#include <cstdint>
#include <vector>

namespace mhmoe::train {

// Row-major [sequences, length]; target -1 is not counted.
struct HostBatch {
  int64_t sequences = 0;
  int64_t length = 0;
  std::vector<int32_t> tokens, targets;

  HostBatch() = default;
  HostBatch(int64_t sequences, int64_t length)
      : sequences(sequences),
        length(length),
        tokens(static_cast<size_t>(sequences * length)),
        targets(static_cast<size_t>(sequences * length), -1) {}

  int64_t counted() const {
    int64_t count = 0;
    for (const int32_t target : targets) count += target >= 0 ? 1 : 0;
    return count;
  }
};

}  // namespace mhmoe::train
