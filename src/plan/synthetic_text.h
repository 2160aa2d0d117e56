// Text to measure tokenisers with where no corpus is at hand.
#pragma once

#include <cstdint>
#include <string>

namespace mhmoe::plan {

// At least `bytes` of JSON lines, a document each of some thousand characters: sentences of made-up words, whose
// lengths and frequencies (the r-th word is met 1 / r times as often as the first) are about English's. Equal for equal
// arguments.
std::string synthetic_corpus(uint64_t seed, int64_t bytes);

}  // namespace mhmoe::plan
