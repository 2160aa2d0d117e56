#include "data/mixture.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace mhmoe::data {
namespace {

constexpr uint64_t kRounds = 6;

Philox order_of(uint64_t seed, int64_t source, int64_t epoch) {
  std::array<char, 64> name;  // no string on the heap for every sequence that is read
  const auto end = fmt::format_to_n(name.data(), name.size(), "data/permutation/{}/{}", source, epoch);
  return {seed, {name.data(), end.size}};
}

}  // namespace

Permutation::Permutation(int64_t size, uint64_t seed, int64_t source, int64_t epoch)
    : random_(order_of(seed, source, epoch)),
      size_(static_cast<uint64_t>(size)),
      half_bits_(std::max(1, static_cast<int>(std::bit_width(size_ - 1) + 1) / 2)) {
  MHMOE_CHECK(size > 0, "permutation of {} elements", size);
}

int64_t Permutation::operator()(int64_t i) const {
  MHMOE_CHECK(i >= 0 && static_cast<uint64_t>(i) < size_, "element {} of a permutation of {}", i, size_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto x = static_cast<uint64_t>(i);
  do {
    uint64_t left = x >> half_bits_, right = x & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      left = std::exchange(right, left ^ (random_.words(round << 32 | right)[0] & mask));
    }
    x = left << half_bits_ | right;
  } while (x >= size_);
  return static_cast<int64_t>(x);
}

Mixture::Mixture(std::span<const double> weights, uint64_t seed)
    : shares_(weights.begin(), weights.end()), random_(seed, "data/mixture") {
  if (shares_.empty()) fail(ExitCode::kConfig, "data.train: expected at least one source");
  for (const double weight : shares_) {
    if (!(weight > 0) || !std::isfinite(weight)) {
      fail(ExitCode::kConfig, "data.train: weight {} of a source; allowed are finite numbers above 0", weight);
    }
  }
  const double sum = std::accumulate(shares_.begin(), shares_.end(), 0.0);
  for (double& share : shares_) share /= sum;
}

// Occurrence k of a source is due at (k + 1/2) / share; the earliest is drawn, the first source where they tie.
int32_t Mixture::next_source(std::span<int64_t> drawn) const {
  size_t earliest = 0;
  double earliest_due = INFINITY;
  for (size_t s = 0; s < shares_.size(); ++s) {
    const double due = (static_cast<double>(drawn[s]) + 0.5) / shares_[s];
    if (due < earliest_due) {
      earliest = s;
      earliest_due = due;
    }
  }
  ++drawn[earliest];
  return static_cast<int32_t>(earliest);
}

std::array<Mixture::Draw, Mixture::kBlock> Mixture::block(int64_t block) const {
  const int64_t begin = block * kBlock;
  const auto sources = static_cast<double>(shares_.size());
  thread_local std::vector<int64_t> drawn, occurrence;
  drawn.clear();
  for (const double share : shares_) {  // certainly drawn before `begin`: no source is further behind than this
    const double certain = std::floor((static_cast<double>(begin) - sources - 2) * share) - 1;
    drawn.push_back(std::max<int64_t>(0, static_cast<int64_t>(certain)));
  }
  for (int64_t n = std::reduce(drawn.begin(), drawn.end()); n < begin; ++n) next_source(drawn);

  occurrence = drawn;
  std::array<int32_t, kBlock> turns;
  for (int32_t& turn : turns) turn = next_source(drawn);
  for (int64_t i = kBlock - 1; i > 0; --i) {  // Fisher-Yates
    const auto word = random_.words(static_cast<uint64_t>(begin + i))[0];
    std::swap(turns[i], turns[(static_cast<uint64_t>(word) * static_cast<uint64_t>(i + 1)) >> 32]);
  }
  std::array<Draw, kBlock> draws;
  for (int64_t i = 0; i < kBlock; ++i) draws[i] = {turns[i], occurrence[turns[i]]++};
  return draws;
}

}  // namespace mhmoe::data
