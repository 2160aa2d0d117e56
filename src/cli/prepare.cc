#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "core/error.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "data/corpus_files.h"
#include "data/prepare.h"
#include "data/tokenizer.h"

namespace mhmoe::cli {
namespace {

struct PrepareArguments {
  std::vector<std::string> inputs;
  std::string output;
  std::string tokenizer;
  std::string text_field;
  bool train_tokenizer = false;
  bool overwrite = false;
  int64_t vocab_size = 0;
  int threads = 0;
};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// On a terminal one line, rewritten in place; elsewhere a line of the log every half minute.
class ProgressLine {
 public:
  void show(const data::Progress& progress) {
    if (first_bytes_ < 0) first_bytes_ = progress.bytes_read;  // not the work of this process, or not timed
    if (seconds_since(shown_) < (terminal_ ? 0.2 : 30)) return;
    shown_ = Clock::now();
    const double rate = static_cast<double>(progress.bytes_read - first_bytes_) / std::max(1e-9, seconds_since(start_));
    const double left = static_cast<double>(progress.bytes_total - progress.bytes_read) / std::max(1.0, rate);
    const auto seconds = static_cast<int64_t>(left);
    const std::string text =
        fmt::format("prepare {:3.0f}% | {:.1f} MB/s | eta {}:{:02}:{:02}",
                    100.0 * static_cast<double>(progress.bytes_read) / static_cast<double>(progress.bytes_total),
                    rate / 1e6, seconds / 3600, seconds / 60 % 60, seconds % 60);
    if (!terminal_) return log::info("{}", text);
    fmt::print(stderr, "\r\x1b[K{}", text);
    std::fflush(stderr);
    drawn_ = true;
  }
  ~ProgressLine() {
    if (drawn_) fmt::print(stderr, "\r\x1b[K");
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point shown_ = start_;
  int64_t first_bytes_ = -1;
  bool drawn_ = false;
};

// Training it again after an interruption would give the same model and take its time.
bool is_trained(const PrepareArguments& arguments, const std::vector<std::string>& files) {
  if (!std::filesystem::exists(arguments.tokenizer)) return false;
  try {
    const auto tokenizer = data::load_tokenizer(arguments.tokenizer);
    return tokenizer->vocab_size() == arguments.vocab_size &&
           data::was_prepared(files, arguments.output, *tokenizer, arguments.text_field);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadData) throw;
    return false;
  }
}

void train_vocabulary(const PrepareArguments& arguments, const std::vector<std::string>& files) {
  if (is_trained(arguments, files)) return log::info("{}: trained on these files before", arguments.tokenizer);
  const auto start = Clock::now();
  log::info("training a vocabulary of {} pieces", arguments.vocab_size);
  data::train_tokenizer(files, arguments.text_field, arguments.vocab_size, arguments.tokenizer);
  log::info("wrote {} in {:.1f} s", arguments.tokenizer, seconds_since(start));
}

void report(const PrepareArguments& arguments, const data::PrepareResult& result, double seconds) {
  const data::ShardInfo& info = result.info;
  if (result.up_to_date) {
    return log::info("{}.bin is up to date: {} documents, {} tokens", arguments.output, info.documents, info.tokens);
  }
  if (result.continued_documents > 0) {
    log::info("{}.bin: continued after {} documents of an interrupted run", arguments.output,
              result.continued_documents);
  }
  // Every document's EOS is a token that stands for no text.
  const double bytes_per_token =
      static_cast<double>(info.utf8_bytes) / static_cast<double>(std::max<int64_t>(1, info.tokens - info.documents));
  const auto new_bytes = static_cast<double>(info.utf8_bytes - result.continued_bytes);
  log::info(
      "{}.bin: {} documents, {} tokens of {} ids, {:.3f} bytes per token, {:.1f} MB; {:.1f} MB of it in {:.1f} s, "
      "{:.1f} MB/s on {} threads",
      arguments.output, info.documents, info.tokens, info.vocab_size, bytes_per_token,
      static_cast<double>(info.utf8_bytes) / 1e6, new_bytes / 1e6, seconds, new_bytes / 1e6 / seconds, thread_count());
}

void prepare(const PrepareArguments& arguments) {
  if (arguments.train_tokenizer && arguments.tokenizer == "bytes") {
    fail(ExitCode::kUsage, "--train-tokenizer with --tokenizer bytes: name the .model file to be written");
  }
  if (arguments.threads > 0) set_thread_count(arguments.threads);
  const auto files = data::find_corpus_files(arguments.inputs);
  if (arguments.train_tokenizer) train_vocabulary(arguments, files);
  const auto tokenizer = data::load_tokenizer(arguments.tokenizer);

  const auto start = Clock::now();
  data::PrepareResult result;
  {
    ProgressLine line;
    data::PrepareOptions options;
    options.text_field = arguments.text_field;
    options.overwrite = arguments.overwrite;
    options.progress = [&](const data::Progress& progress) { line.show(progress); };
    result = data::prepare_shard(files, arguments.output, *tokenizer, options);
  }
  report(arguments, result, std::max(1e-9, seconds_since(start)));
}

constexpr const char* kFooter =
    "Writes OUTPUT.bin and OUTPUT.idx (Megatron's layout) and OUTPUT.json (counts and checksums).\n"
    "Documents are the lines of .jsonl files, or whole .txt files, both also as .gz and .zst; of a line the string\n"
    "\"text\", \"raw_content\" or \"content\" is taken. Interrupted, the same command goes on where it was; done, it "
    "says\n"
    "so. docs/data.md describes all formats.\n"
    "Examples:\n"
    "  mhmoe prepare --input data/en-tiny/train.jsonl --output data/en-tiny/train \\\n"
    "                --tokenizer data/en-tiny/tokenizer.model --train-tokenizer --vocab-size 4096\n"
    "  mhmoe prepare --input data/en-tiny/validation.jsonl --output data/en-tiny/validation \\\n"
    "                --tokenizer data/en-tiny/tokenizer.model\n"
    "  mhmoe prepare --input 'redpajama/arxiv_*.jsonl.zst' redpajama/books --output data/arxiv_books \\\n"
    "                --tokenizer data/tokenizer.model";

}  // namespace

void add_prepare_command(CLI::App& app) {
  auto arguments = std::make_shared<PrepareArguments>();
  CLI::App* command = app.add_subcommand("prepare", "Tokenise text files, also compressed, into token shards");
  command->footer(kFooter);
  command
      ->add_option("--input", arguments->inputs,
                   "files, folders or quoted patterns ('DIR/*.jsonl.zst'), read in this order")
      ->required();
  command->add_option("--output", arguments->output, "prefix of the shard to write")->required();
  command->add_option("--tokenizer", arguments->tokenizer, "a SentencePiece .model file, or `bytes`")->required();
  command->add_option("--text-field", arguments->text_field,
                      "key of the text in JSON lines; the first of text, raw_content and content if left out");
  command->add_flag("--overwrite", arguments->overwrite,
                    "replace a shard that was made from other files or with another tokenizer, or is damaged");
  auto* vocab_size =
      command->add_option("--vocab-size", arguments->vocab_size, "pieces of the vocabulary to train, 259 to 1000000")
          ->check(CLI::Range(int64_t{259}, int64_t{1000000}));
  auto* train = command->add_flag("--train-tokenizer", arguments->train_tokenizer,
                                  "first train the tokenizer on the input (BPE with byte fallback) and write it");
  train->needs(vocab_size);
  vocab_size->needs(train);
  command->add_option("--threads", arguments->threads, "threads; all cores if left out")->check(CLI::Range(1, 1024));
  command->callback([arguments] { prepare(*arguments); });
}

}  // namespace mhmoe::cli
