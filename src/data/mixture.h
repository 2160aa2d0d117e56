// Which source and which of its sequences a global sequence number stands for: pure functions of (seed, weights,
// number), whoever reads.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/philox.h"

namespace mhmoe::data {

// A bijection of [0, size) chosen by (seed, source, epoch): a Feistel network whose round function is Philox, walked
// until it lands inside. Needs no table.
class Permutation {
 public:
  Permutation(int64_t size, uint64_t seed, int64_t source, int64_t epoch);
  int64_t operator()(int64_t i) const;

 private:
  Philox random_;
  uint64_t size_;
  int half_bits_;
};

// Sources take turns so evenly that after n numbers each was drawn n x its share, to within the number of sources and
// one block. Inside a block of kBlock numbers the turns are shuffled, so that they never fall in step with ranks or
// micro-batches.
class Mixture {
 public:
  static constexpr int64_t kBlock = 256;
  struct Draw {
    int32_t source = 0;
    int64_t occurrence = 0;  // how many smaller numbers draw from the same source
  };

  // Weights need not sum to 1. Throws Error(kConfig) unless all are positive and finite.
  Mixture(std::span<const double> weights, uint64_t seed);
  // The draws of numbers [block * kBlock, (block + 1) * kBlock).
  std::array<Draw, kBlock> block(int64_t block) const;

 private:
  int32_t next_source(std::span<int64_t> drawn) const;

  std::vector<double> shares_;
  Philox random_;
};

}  // namespace mhmoe::data
