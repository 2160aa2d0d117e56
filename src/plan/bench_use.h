// Measuring what a trained model is used for, with untrained weights, and the preparation of text.
#pragma once

#include <string>
#include <vector>

#include "plan/bench.h"

namespace mhmoe::plan {

struct EvaluationSpeed {
  double median_seconds = 0, best_seconds = 0;  // of a micro-batch
  int64_t tokens = 0;                           // of one
  std::string device;                           // the context's name

  double tokens_per_second() const { return static_cast<double>(tokens) / median_seconds; }
};

// Micro-batches scored as validation scores them, with the configuration's capacity.
EvaluationSpeed time_evaluation(const Backend& backend, const train::RunConfig& config, DType compute,
                                const BenchOptions& options);

struct GenerationLength {
  int64_t prompt = 0;  // tokens read at once
  int64_t tokens = 0;  // read one by one after it
};

struct GenerationSpeed {
  double prompt_seconds = 0;  // the fastest of the prompts
  double token_seconds = 0;   // the median of the single tokens
  GenerationLength length;
  std::string device;

  double prompt_tokens_per_second() const { return static_cast<double>(length.prompt) / prompt_seconds; }
  double tokens_per_second() const { return 1 / token_seconds; }
};

// One sequence with cached keys and values, as `mhmoe generate` reads it; sampling is not in it. The prompt is read
// options.warmup + options.steps times.
GenerationSpeed time_generation(const Backend& backend, const train::RunConfig& config, DType compute,
                                const GenerationLength& length, const BenchOptions& options);

struct PreparationSpeed {
  double seconds = 0;           // the fastest run
  double training_seconds = 0;  // of the tokenizer; 0 if it was there
  int64_t bytes = 0;            // of text
  int64_t tokens = 0;

  double bytes_per_second() const { return static_cast<double>(bytes) / seconds; }
  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

struct PreparationInput {
  std::vector<std::string> files;  // of a corpus; empty: synthetic text
  int64_t synthetic_bytes = 0;
  std::string tokenizer;   // "bytes" or a model; empty: one is trained on the text
  int64_t vocab_size = 0;  // of that one
  std::string text_field;
};

// Shards written to a temporary folder, as `mhmoe prepare` writes them, `runs` times.
PreparationSpeed time_preparation(const PreparationInput& input, int64_t runs);

}  // namespace mhmoe::plan
