#include "core/philox.h"

#include <cmath>
#include <numbers>

namespace mhmoe {
namespace {

// FNV-1a, 64 bit: fixes a stream's number by its name, in every build and on every machine.
uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
constexpr int kRounds = 10;

}  // namespace

std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> x, std::array<uint32_t, 2> key) {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * x[0];
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * x[2];
    x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ key[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return x;
}

Philox::Philox(uint64_t seed, std::string_view stream)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}, stream_(hash_name(stream)) {}

std::array<uint32_t, 4> Philox::words(uint64_t counter) const {
  return philox4x32_10({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                        static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                       key_);
}

float Philox::uniform(uint64_t i) const {
  return static_cast<float>(words(i / 4)[i % 4] >> 8) * 0x1p-24f;
}

float Philox::normal(uint64_t i) const {
  const auto w = words(i / 2);                                   // one pair of normals a counter value
  const double u = (static_cast<double>(w[0]) + 1.0) * 0x1p-32;  // in (0, 1]
  const double angle = 2 * std::numbers::pi * (static_cast<double>(w[1]) * 0x1p-32);
  const double radius = std::sqrt(-2 * std::log(u));
  return static_cast<float>(radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
}

}  // namespace mhmoe
