#include "data/loader.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "core/hash.h"
#include "core/log.h"

namespace mhmoe::data {
namespace {

std::vector<double> weights_of(std::span<const Source> sources) {
  std::vector<double> weights;
  for (const Source& source : sources) weights.push_back(source.weight);
  return weights;
}

int64_t rows_of(std::span<int32_t> tokens, std::span<int32_t> targets, int64_t length) {
  MHMOE_CHECK(tokens.size() == targets.size() && tokens.size() % static_cast<size_t>(length) == 0,
              "batch of {} tokens and {} targets with sequences of {}", tokens.size(), targets.size(), length);
  return static_cast<int64_t>(tokens.size()) / length;
}

}  // namespace

BatchLoader::BatchLoader(std::span<const Source> sources, const Tokenizer& tokenizer, int64_t sequence_length,
                         uint64_t seed, OnBadBlock on_bad_block)
    : weights_(weights_of(sources)),
      mixture_(weights_, seed),
      length_(sequence_length),
      seed_(seed),
      on_bad_block_(on_bad_block) {
  MHMOE_CHECK(length_ > 0, "sequence length {}", length_);
  for (const Source& source : sources) {
    shards_.push_back(std::make_unique<Shard>(source.path, tokenizer));
    if (const int64_t tokens = shards_.back()->token_count(); tokens <= length_) {
      fail(ExitCode::kBadData,
           "{}: {} tokens; one sequence of data.sequence_length {} needs {}: take more text or shorter "
           "sequences",
           source.path, tokens, length_, length_ + 1);
    }
  }
}

BatchLoader::Location BatchLoader::locate(Mixture::Draw draw) const {
  const int64_t count = sequences_of(draw.source);
  const int64_t epoch = draw.occurrence / count;
  const Permutation order(count, seed_, draw.source, epoch);
  return {draw.source, epoch, order(draw.occurrence % count)};
}

void BatchLoader::read(int64_t first, std::span<int32_t> tokens, std::span<int32_t> targets) const {
  const int64_t rows = rows_of(tokens, targets, length_);
  thread_local std::vector<int32_t> sequence;
  sequence.resize(static_cast<size_t>(length_ + 1));
  std::array<Mixture::Draw, Mixture::kBlock> draws;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t number = first + row;
    if (row == 0 || number % Mixture::kBlock == 0) draws = mixture_.block(number / Mixture::kBlock);
    read_sequence(locate(draws[number % Mixture::kBlock]), sequence);
    std::copy_n(sequence.begin(), length_, tokens.begin() + row * length_);
    std::copy_n(sequence.begin() + 1, length_, targets.begin() + row * length_);
  }
}

void BatchLoader::read_sequence(Location at, std::span<int32_t> sequence) const {
  const int64_t count = sequences_of(at.source);
  for (int64_t tries = 1;; ++tries, at.sequence = (at.sequence + 1) % count) {
    try {
      return shards_[at.source]->read(at.sequence * length_, sequence);
    } catch (const BadBlock& bad) {
      if (on_bad_block_ == OnBadBlock::kStop || tries == count) throw;
      note(bad);
    }
  }
}

void BatchLoader::note(const BadBlock& bad) const {
  const std::lock_guard lock(mutex_);
  if (!bad_blocks_.insert(bad.place()).second) return;
  log::warning("{}; the sequences in it are replaced by the next ones (data.on_bad_block is skip)", bad.what());
}

int64_t BatchLoader::bad_blocks() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(bad_blocks_.size());
}

int64_t BatchLoader::sequence_count() const {
  int64_t count = 0;
  for (size_t source = 0; source < shards_.size(); ++source) count += sequences_of(static_cast<int64_t>(source));
  return count;
}

uint64_t BatchLoader::data_identity() const {
  std::vector<uint64_t> parts = {static_cast<uint64_t>(length_)};
  for (size_t source = 0; source < shards_.size(); ++source) {
    parts.push_back(shards_[source]->identity());
    parts.push_back(std::bit_cast<uint64_t>(weights_[source]));
  }
  return xxh3(parts.data(), parts.size() * sizeof(uint64_t));
}

ValidationSet::ValidationSet(const std::string& path, const Tokenizer& tokenizer, int64_t sequence_length,
                             int64_t max_targets)
    : shard_(path, tokenizer),
      length_(sequence_length),
      eos_(tokenizer.eos()),
      targets_(std::min(max_targets, shard_.token_count() - 1)) {
  MHMOE_CHECK(length_ > 0 && max_targets > 0, "sequence length {}, {} targets", length_, max_targets);
  if (targets_ < 1) fail(ExitCode::kBadData, "{}: {} tokens; a validation set needs 2", path, shard_.token_count());
  std::vector<int32_t> ids(4096);
  for (int64_t begin = 1; begin <= targets_; begin += static_cast<int64_t>(ids.size())) {
    ids.resize(std::min<int64_t>(4096, targets_ + 1 - begin));
    shard_.read(begin, ids);
    for (const int32_t id : ids) utf8_bytes_ += tokenizer.byte_length(id);
  }
}

void ValidationSet::read(int64_t first, std::span<int32_t> tokens, std::span<int32_t> targets) const {
  const int64_t rows = rows_of(tokens, targets, length_);
  std::fill(tokens.begin(), tokens.end(), eos_);
  std::fill(targets.begin(), targets.end(), -1);
  std::vector<int32_t> sequence;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t begin = (first + row) * length_;
    const int64_t scored = std::min(length_, targets_ - begin);
    if (scored <= 0) break;
    sequence.resize(scored + 1);
    shard_.read(begin, sequence);
    std::copy_n(sequence.begin(), scored, tokens.begin() + row * length_);
    std::copy_n(sequence.begin() + 1, scored, targets.begin() + row * length_);
  }
}

}  // namespace mhmoe::data
