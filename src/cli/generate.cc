#include <chrono>
#include <memory>
#include <optional>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/output.h"
#include "core/file.h"
#include "core/log.h"
#include "core/rank.h"
#include "train/generation.h"
#include "train/trained_model.h"
#include "train/utf8_stream.h"

namespace mhmoe::cli {
namespace {

constexpr size_t kMaxPromptBytes = size_t{16} << 20;

struct GenerateOptions {
  std::string model;
  std::string prompt;
  std::optional<std::string> prompt_file;
  int64_t tokens = 100;
  double temperature = 0.8, top_p = 0.95;
  int64_t seed = 1;
  bool no_cache = false;
  std::vector<std::string> overrides;
  DeviceOptions device;
};

void check(const GenerateOptions& options) {
  // Written so that not-a-number fails.
  if (!(options.temperature >= 0 && options.temperature <= 1e6)) {
    fail(ExitCode::kUsage, "--temperature {}: expected 0 (always the likeliest token) to 1e6", options.temperature);
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    fail(ExitCode::kUsage, "--top-p {}: expected more than 0, at most 1 (all tokens)", options.top_p);
  }
}

std::string prompt_text(const GenerateOptions& options) {
  const bool from_file = options.prompt_file.has_value();
  std::string text = options.prompt;
  if (from_file) {
    const InputFile file(*options.prompt_file);
    if (file.size() > kMaxPromptBytes) {
      fail(ExitCode::kBadData, "{}: has {} bytes, a prompt at most {}; give its last part", *options.prompt_file,
           file.size(), kMaxPromptBytes);
    }
    text = file.read_whole();
  }
  if (const auto at = train::first_invalid_utf8(text)) {
    fail(from_file ? ExitCode::kBadData : ExitCode::kUsage,
         "{}: byte {} is not valid UTF-8; convert the text first, for example with iconv -t UTF-8",
         from_file ? *options.prompt_file : "--prompt", *at + 1);
  }
  return text;
}

std::vector<int32_t> prompt_ids(const std::string& text, const data::Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  tokenizer.encode(text, ids);
  if (ids.empty()) ids.push_back(tokenizer.eos());  // where documents begin in training
  return ids;
}

void warn_if_long(int64_t positions, const train::RunConfig& config) {
  if (positions <= config.data.sequence_length) return;
  log::warning("the text may grow to {} tokens, and the model was trained on {}; expect it to get worse from there on",
               positions, config.data.sequence_length);
}

train::Decoder make_decoder(Context& ctx, train::CausalLm& task, const nn::ModelConfig& config, int64_t positions) {
  try {
    return {ctx, task, config, positions};
  } catch (const Error& error) {
    if (error.code() != ExitCode::kMemory) throw;
    fail(ExitCode::kMemory, "no memory for the keys and values of {} tokens; give fewer --tokens or a shorter prompt",
         positions);
  }
}

// Writes text as it comes, keeps time.
class Printer {
 public:
  explicit Printer(const data::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void print(std::string_view text) {
    if (text.empty()) return;
    write_output(text);
    ends_line_ = text.ends_with('\n');
  }
  void add(int32_t id) {
    if (count_++ == 0) first_ = Clock::now();
    print(stream_.add(tokenizer_.decode({&id, 1})));
  }
  void finish(size_t prompt_tokens, bool ended) {
    const Clock::time_point now = Clock::now();
    print(stream_.finish());
    if (!ends_line_) print("\n");
    const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
    std::string speed;
    if (count_ > 1) {
      speed = fmt::format("; the first after {:.3f} s, then {:.1f} tokens/s", seconds(first_ - start_),
                          static_cast<double>(count_ - 1) / seconds(now - first_));
    }
    log::info("{} tokens after a prompt of {}{}; {}", count_, prompt_tokens, speed,
              ended ? "the model ended the text" : "stopped at --tokens");
  }

 private:
  using Clock = std::chrono::steady_clock;
  const data::Tokenizer& tokenizer_;
  train::Utf8Stream stream_;
  bool ends_line_ = true;
  int64_t count_ = 0;
  Clock::time_point start_ = Clock::now(), first_ = start_;
};

void run_generate(const GenerateOptions& options) {
  check(options);
  const std::string text = prompt_text(options);
  train::TrainedModel model(options.model, options.overrides);
  const train::RunConfig& config = model.config();
  const data::Tokenizer& tokenizer = model.tokenizer();
  const std::vector<int32_t> prompt = prompt_ids(text, tokenizer);
  const auto positions = static_cast<int64_t>(prompt.size()) + options.tokens;
  warn_if_long(positions, config);

  const Backend& backend = open_device(options.device);
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const std::unique_ptr<train::CausalLm> task = model.load(*ctx, backend);
  train::Decoder decoder = make_decoder(*ctx, *task, config.model, positions);
  const train::Generation generation = {
      .tokens = options.tokens,
      .vocab = tokenizer.vocab_size(),
      .end = tokenizer.eos(),
      .use_cache = !options.no_cache,
      .sampling = {
          .temperature = options.temperature, .top_p = options.top_p, .seed = static_cast<uint64_t>(options.seed)}};
  Printer printer(tokenizer);
  printer.print(text);
  const bool ended = train::generate(decoder, prompt, generation, [&](int32_t id) { printer.add(id); });
  printer.finish(prompt.size(), ended);
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Continue a text with a trained model, as it comes");
  command->footer(
      "Prints the prompt and what follows; the same seed gives the same text. Routing is dropless.\n"
      "Example: mhmoe generate runs/mhmoe_8 --prompt 'It is a truth'\n"
      "         mhmoe generate runs/mhmoe_8/checkpoints/step-00005000 --prompt-file begin.txt --tokens 500 --seed 7\n"
      "         mhmoe generate model.safetensors --temperature 0     (the likeliest token every time)");
  command
      ->add_option("MODEL", options->model,
                   "a run's folder (its newest checkpoint), a checkpoint, or a safetensors file")
      ->required();
  auto* prompt = command->add_option("--prompt", options->prompt, "the text to continue; without one, a new document");
  command->add_option("--prompt-file", options->prompt_file, "the same, from a file")->excludes(prompt);
  command->add_option("--tokens", options->tokens, "at most this many, fewer if the model ends the text")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  command->add_option("--temperature", options->temperature, "0: the likeliest token; higher: more variety")
      ->capture_default_str();
  command
      ->add_option("--top-p", options->top_p,
                   "take tokens from the smallest set of the likeliest that has this probability; 1: all")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "of the choices")
      ->check(CLI::Range(int64_t{0}, int64_t{9007199254740991}))
      ->capture_default_str();
  command->add_flag("--no-cache", options->no_cache, "read the whole text again for every token: slow, the same text");
  add_set_option(*command, options->overrides);
  add_device_options(*command, options->device);
  command->callback([options] { run_generate(*options); });
}

}  // namespace mhmoe::cli
