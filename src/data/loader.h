// Batches of token sequences. Sequence j of a shard is its tokens [jT, jT + T]: T inputs, and as targets the same
// shifted by one.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "data/mixture.h"
#include "data/on_bad_block.h"
#include "data/shards.h"
#include "data/tokenizer.h"

namespace mhmoe::data {

struct Source {
  std::string path;  // prefix of a shard
  double weight = 1.0;
};

// Endless training data. The position of a run is one integer, the global sequence number: what stands at a number
// depends on (seed, sources, number) alone, so any number of ranks and any micro-batch read the same sequences.
class BatchLoader {
 public:
  // Throws Error(kBadData) when a shard holds no whole sequence.
  BatchLoader(std::span<const Source> sources, const Tokenizer& tokenizer, int64_t sequence_length, uint64_t seed,
              OnBadBlock on_bad_block = OnBadBlock::kStop);

  // tokens, targets: [B, T], overwritten with the sequences of numbers first .. first + B - 1.
  void read(int64_t first, std::span<int32_t> tokens, std::span<int32_t> targets) const;

  struct Location {
    int32_t source = 0;
    int64_t epoch = 0;
    int64_t sequence = 0;  // within the source
  };
  Location locate(int64_t number) const {
    return locate(mixture_.block(number / Mixture::kBlock)[number % Mixture::kBlock]);
  }

  int64_t sequence_length() const { return length_; }
  // Sequences of all sources together, each counted once.
  int64_t sequence_count() const;
  // What the sequences hold, as far as it can be told without reading them all: the shards' identities and weights and
  // the sequence length. Not their paths, so data may move; not the seed.
  uint64_t data_identity() const;
  // Damaged blocks met so far, with OnBadBlock::kSkip; there is a warning about each.
  int64_t bad_blocks() const;
  const Shard& shard(int64_t source) const { return *shards_[source]; }

 private:
  Location locate(Mixture::Draw draw) const;
  void read_sequence(Location at, std::span<int32_t> sequence) const;
  void note(const BadBlock& bad) const;
  int64_t sequences_of(int64_t source) const { return (shards_[source]->token_count() - 1) / length_; }

  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<double> weights_;
  Mixture mixture_;
  int64_t length_;
  uint64_t seed_;
  OnBadBlock on_bad_block_;
  mutable std::mutex mutex_;
  mutable std::set<std::string> bad_blocks_;  // under the mutex: their places
};

// A validation set: sequences from the start, none overlapping, every target scored exactly once. Rows are padded with
// EOS and target -1 after the last scored target.
class ValidationSet {
 public:
  // At most max_targets targets are scored; all of them where the shard holds fewer.
  ValidationSet(const std::string& path, const Tokenizer& tokenizer, int64_t sequence_length, int64_t max_targets);

  // tokens, targets: [B, T], overwritten with sequences first .. first + B - 1; those from sequences() on are padding.
  void read(int64_t first, std::span<int32_t> tokens, std::span<int32_t> targets) const;

  int64_t sequences() const { return (targets_ + length_ - 1) / length_; }
  int64_t targets() const { return targets_; }
  // UTF-8 bytes that the scored targets stand for, EOS counting as none.
  int64_t utf8_bytes() const { return utf8_bytes_; }

 private:
  Shard shard_;
  int64_t length_;
  int32_t eos_;
  int64_t targets_;
  int64_t utf8_bytes_ = 0;
};

}  // namespace mhmoe::data
