#include "cli/bench_use.h"

#include <memory>

#include "cli/bench_model.h"
#include "cli/output.h"
#include "core/json.h"
#include "core/parallel_for.h"
#include "core/rank.h"
#include "plan/bench_use.h"
#include "plan/report.h"
#include "train/trainer.h"

namespace mhmoe::cli {
namespace {

// Text a line a figure, or one JSON object.
class Figures {
 public:
  void add(const char* key, json::Value value, const std::string& text) {
    json_.add(key, std::move(value));
    text_ += fmt::format("{:<24} {}\n", key, text);
  }
  void add(const char* key, std::string_view value) { add(key, value, std::string(value)); }
  void add(const char* key, int64_t value) { add(key, value, std::to_string(value)); }
  void add(const char* key, double value) { add(key, value, fmt::format("{:.4g}", value)); }
  void print(bool as_json) const { write_output(as_json ? json::to_line(json_) + "\n" : text_); }

 private:
  json::Value json_ = json::Value::object();
  std::string text_;
};

struct BenchGeneration : BenchModel {
  plan::GenerationLength length = {.prompt = 128, .tokens = 64};
};

struct Measured {
  train::RunConfig config;
  const Backend& backend;
  DType compute;
  Figures figures;

  explicit Measured(const BenchModel& command)
      : config(load_with_vocabulary(command.file, command.overrides)),
        backend(open_device(command.device)),
        compute(train::compute_dtype(config.train.precision, backend.prefers_bf16(local_rank()))) {}

  void add_heading(const std::string& device) {
    figures.add("name", config.name);
    figures.add("precision", train::precision_name(compute));
    figures.add("device", device);
    figures.add("threads", int64_t{thread_count()});
  }
};

void run_evaluate(const BenchModel& command) {
  Measured measured(command);
  const plan::EvaluationSpeed speed =
      plan::time_evaluation(measured.backend, measured.config, measured.compute, command.options);
  measured.add_heading(speed.device);
  measured.figures.add("tokens", speed.tokens);
  measured.figures.add("seconds", speed.median_seconds);
  measured.figures.add("best_seconds", speed.best_seconds);
  measured.figures.add("tokens_per_second", speed.tokens_per_second());
  measured.figures.print(command.json);
}

void run_generate(const BenchGeneration& command) {
  Measured measured(command);
  const plan::GenerationSpeed speed =
      plan::time_generation(measured.backend, measured.config, measured.compute, command.length, command.options);
  measured.add_heading(speed.device);
  measured.figures.add("prompt_tokens", speed.length.prompt);
  measured.figures.add("prompt_seconds", speed.prompt_seconds);
  measured.figures.add("prompt_tokens_per_second", speed.prompt_tokens_per_second());
  measured.figures.add("tokens", speed.length.tokens);
  measured.figures.add("tokens_per_second", speed.tokens_per_second());
  measured.figures.print(command.json);
}

struct BenchPrepare {
  plan::PreparationInput input;
  int64_t megabytes = 32, runs = 3;
  int threads = 0;
  bool json = false;
};

void run_prepare(BenchPrepare command) {
  if (command.threads > 0) set_thread_count(command.threads);
  command.input.synthetic_bytes = command.megabytes * 1'000'000;
  const plan::PreparationSpeed speed = plan::time_preparation(command.input, command.runs);
  Figures figures;
  figures.add("threads", int64_t{thread_count()});
  figures.add("text", command.input.files.empty() ? "synthetic" : command.input.files.front());
  figures.add("tokenizer", command.input.tokenizer.empty()
                               ? fmt::format("trained here, {} pieces", command.input.vocab_size)
                               : command.input.tokenizer);
  if (command.input.tokenizer.empty()) figures.add("training_seconds", speed.training_seconds);
  figures.add("bytes", speed.bytes);
  figures.add("tokens", speed.tokens);
  figures.add("seconds", speed.seconds);
  figures.add("bytes_per_second", speed.bytes_per_second(), fmt::format("{:.1f} M", speed.bytes_per_second() * 1e-6));
  figures.add("tokens_per_second", speed.tokens_per_second(),
              fmt::format("{:.2f} M", speed.tokens_per_second() * 1e-6));
  figures.print(command.json);
}

void add_evaluate(CLI::App& bench) {
  auto options = std::make_shared<BenchModel>();
  CLI::App* command = bench.add_subcommand("evaluate", "Time validation: micro-batches scored, in tokens/s");
  command->footer("Example: mhmoe bench evaluate configs/bench/mhmoe_h3.json --device cpu");
  add_model_options(*command, *options);
  command->callback([options] { run_evaluate(*options); });
}

void add_generate(CLI::App& bench) {
  constexpr int64_t kMostTokens = int64_t{1} << 20;
  auto options = std::make_shared<BenchGeneration>();
  CLI::App* command = bench.add_subcommand("generate", "Time generation: a prompt read at once, then token by token");
  command->footer(
      "One sequence, dropless, without choosing the tokens.\n"
      "Example: mhmoe bench generate configs/bench/mhmoe_h3.json --device cpu --prompt-tokens 200 --tokens 100");
  add_model_options(*command, *options);
  add_number(*command, "--prompt-tokens", options->length.prompt, 1, kMostTokens, "tokens of the prompt");
  add_number(*command, "--tokens", options->length.tokens, 1, kMostTokens, "tokens read one by one after the prompt");
  command->callback([options] { run_generate(*options); });
}

void add_prepare(CLI::App& bench) {
  auto options = std::make_shared<BenchPrepare>();
  options->input.vocab_size = 8192;
  CLI::App* command = bench.add_subcommand("prepare", "Time the making of token shards from text, in bytes/s");
  command->footer(
      "Without --input, English-like text of made-up words; without --tokenizer, one is trained on the text first.\n"
      "Files are written to TMPDIR and synced, as mhmoe prepare does.\n"
      "Example: mhmoe bench prepare --input data/en/train.jsonl --tokenizer data/en/tokenizer.model");
  auto* input =
      command->add_option("--input", options->input.files, "files, folders or patterns, as mhmoe prepare takes them");
  command->add_option("--text-field", options->input.text_field, "of JSON lines")->needs(input);
  command->add_option("--tokenizer", options->input.tokenizer, "a SentencePiece model, or bytes");
  add_number(*command, "--vocab-size", options->input.vocab_size, 259, 1'000'000, "of the tokenizer that is trained");
  add_number(*command, "--megabytes", options->megabytes, 1, 100'000, "of synthetic text");
  add_number(*command, "--runs", options->runs, 1, 1000, "of which the fastest counts");
  command->add_option("--threads", options->threads, "CPU threads; by default all")->check(CLI::Range(1, 4096));
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options] { run_prepare(*options); });
}

}  // namespace

void add_bench_use_commands(CLI::App& bench) {
  add_prepare(bench);
  add_evaluate(bench);
  add_generate(bench);
}

}  // namespace mhmoe::cli
