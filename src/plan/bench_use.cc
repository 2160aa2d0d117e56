#include "plan/bench_use.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "core/append_file.h"
#include "core/clock.h"
#include "core/rank.h"
#include "data/corpus_files.h"
#include "data/prepare.h"
#include "plan/synthetic_text.h"
#include "train/evaluation.h"
#include "train/generation.h"

namespace mhmoe::plan {
namespace {

// A model as it is initialised, in the state arena.
std::unique_ptr<train::CausalLm> untrained(Context& ctx, const train::RunConfig& config, DType compute) {
  auto model = std::make_unique<train::CausalLm>(config.model, false);
  model->parameters().allocate(ctx, compute, false);
  model->parameters().initialize(ctx, config.seed);
  return model;
}

// A folder of its own in the system's place for temporary ones; gone with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_(std::filesystem::temp_directory_path() / fmt::format("mhmoe-bench-{}", getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string file(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

void write_file(const std::string& path, std::string_view text) {
  AppendFile file(path);
  file.write(text.data(), text.size());
}

}  // namespace

EvaluationSpeed time_evaluation(const Backend& backend, const train::RunConfig& config, DType compute,
                                const BenchOptions& options) {
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const auto model = untrained(*ctx, config, compute);
  const train::HostBatch batch = synthetic_batch(config, config.train.micro_batch_sequences);
  std::vector<double> seconds;
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    const auto start = Clock::now();
    train::score_batch(*ctx, *model, config, batch, config.model.moe.capacity_factor, nullptr);
    if (i >= options.warmup) seconds.push_back(seconds_since(start));
    ctx->step().merge_blocks();
  }
  return {.median_seconds = median(seconds),
          .best_seconds = std::ranges::min(seconds),
          .tokens = batch.sequences * batch.length,
          .device = ctx->name()};
}

GenerationSpeed time_generation(const Backend& backend, const train::RunConfig& config, DType compute,
                                const GenerationLength& length, const BenchOptions& options) {
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const auto model = untrained(*ctx, config, compute);
  train::Decoder decoder(*ctx, *model, config.model, length.prompt + length.tokens);
  train::RunConfig one = config;
  one.data.sequence_length = length.prompt + length.tokens;
  const std::vector<int32_t> ids = synthetic_batch(one, 1).tokens;
  GenerationSpeed speed{.prompt_seconds = std::numeric_limits<double>::infinity(),
                        .token_seconds = 0,
                        .length = length,
                        .device = ctx->name()};
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    decoder.clear();
    const auto start = Clock::now();
    decoder.read(std::span(ids).first(static_cast<size_t>(length.prompt)));
    if (i >= options.warmup) speed.prompt_seconds = std::min(speed.prompt_seconds, seconds_since(start));
  }
  std::vector<double> seconds;
  for (int64_t i = 0; i < length.tokens; ++i) {
    const auto start = Clock::now();
    decoder.read(std::span(ids).subspan(static_cast<size_t>(length.prompt + i), 1));
    seconds.push_back(seconds_since(start));
  }
  speed.token_seconds = median(seconds);
  return speed;
}

PreparationSpeed time_preparation(const PreparationInput& input, int64_t runs) {
  constexpr uint64_t kSeed = 1;
  const TemporaryFolder folder;
  std::vector<std::string> files = data::find_corpus_files(input.files);
  if (files.empty()) {
    files.push_back(folder.file("text.jsonl"));
    write_file(files.front(), synthetic_corpus(kSeed, input.synthetic_bytes));
  }
  PreparationSpeed speed{.seconds = std::numeric_limits<double>::infinity()};
  std::string tokenizer = input.tokenizer;
  if (tokenizer.empty()) {
    tokenizer = folder.file("tokenizer.model");
    const auto start = Clock::now();
    data::train_tokenizer(files, input.text_field, input.vocab_size, tokenizer);
    speed.training_seconds = seconds_since(start);
  }
  const auto loaded = data::load_tokenizer(tokenizer);
  data::PrepareOptions options;
  options.text_field = input.text_field;
  for (int64_t run = 0; run < runs; ++run) {
    const auto start = Clock::now();
    const data::PrepareResult result =
        data::prepare_shard(files, folder.file(fmt::format("shard{}", run).c_str()), *loaded, options);
    speed.seconds = std::min(speed.seconds, seconds_since(start));
    speed.bytes = result.info.utf8_bytes;
    speed.tokens = result.info.tokens;
  }
  return speed;
}

}  // namespace mhmoe::plan
