// Text from a trained model, token by token. docs/generation.md.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "nn/key_value_cache.h"
#include "train/task.h"

namespace mhmoe::train {

struct Sampling {
  double temperature = 1.0;  // logits are divided by it; 0: always the likeliest id
  double top_p = 1.0;        // ids are taken from the smallest set of the likeliest that has this probability
  uint64_t seed = 1;
};

// The id that stands at `position` of the sequence, given the logits for it: a pure function of its arguments. Among
// equally likely ids the lowest counts as likeliest. Throws Error(kNumeric) if a logit is not finite.
int32_t sample(std::span<const float> logits, const Sampling& sampling, int64_t position);

// A model reading one sequence. Routing is dropless: with a fixed capacity later tokens would change earlier ones.
class Decoder {
 public:
  // Room for `capacity` positions in the state arena. config and task must outlive the decoder.
  Decoder(Context& ctx, CausalLm& task, const nn::ModelConfig& config, int64_t capacity);

  // Appends `tokens`, at least one, to the sequence; in one forward pass. Returns the logits of the token that follows,
  // valid until the next call.
  std::span<const float> read(std::span<const int32_t> tokens);
  // The sequence is empty again.
  void clear() { cache_.clear(); }

  int64_t capacity() const { return cache_.capacity(); }

 private:
  Context& ctx_;
  CausalLm& task_;
  const nn::ModelConfig& config_;
  nn::KeyValueCache cache_;
  Tensor logits_;
  std::vector<float> host_logits_;
};

struct Generation {
  int64_t tokens = 0;     // at most so many
  int64_t vocab = 0;      // ids from here on, which only pad the model's vocabulary, are never taken
  int32_t end = 0;        // the id that ends the text
  bool use_cache = true;  // false: the whole sequence is read again for every token; the same ids
  Sampling sampling;
};

// Continues `prompt`, at least one id, and calls emit(id) for each new one as it comes; the end of text is not emitted.
// Returns whether the text came to its end. prompt.size() + generation.tokens must be within the decoder's capacity.
bool generate(Decoder& decoder, std::span<const int32_t> prompt, const Generation& generation,
              const std::function<void(int32_t)>& emit);

}  // namespace mhmoe::train
