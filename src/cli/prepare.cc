#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "core/error.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "data/corpus.h"
#include "data/prepare.h"
#include "data/tokenizer.h"

namespace mhmoe::cli {
namespace {

struct PrepareOptions {
  std::vector<std::string> inputs;
  std::string output;
  std::string tokenizer;
  bool train_tokenizer = false;
  int64_t vocab_size = 0;
  int threads = 0;
};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One line on a terminal, rewritten in place; nothing elsewhere.
class ProgressLine {
 public:
  void show(const data::Progress& progress) {
    if (!terminal_ || seconds_since(shown_) < 0.2) return;
    shown_ = Clock::now();
    const double seconds = std::max(1e-9, seconds_since(start_));
    const double rate = static_cast<double>(progress.bytes_read) / seconds;
    const auto left = static_cast<int64_t>(static_cast<double>(progress.bytes_total - progress.bytes_read) / rate);
    fmt::print(stderr, "\r\x1b[Kprepare {:3.0f}% | {:.1f} MB/s | eta {}:{:02}:{:02}",
               100.0 * static_cast<double>(progress.bytes_read) / static_cast<double>(progress.bytes_total), rate / 1e6,
               left / 3600, left / 60 % 60, left % 60);
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
  bool drawn_ = false;
};

void train_vocabulary(const PrepareOptions& options, const std::vector<std::string>& files) {
  const auto start = Clock::now();
  log::info("training a vocabulary of {} pieces", options.vocab_size);
  data::train_tokenizer(files, options.vocab_size, options.tokenizer);
  log::info("wrote {} in {:.1f} s", options.tokenizer, seconds_since(start));
}

void prepare(const PrepareOptions& options) {
  if (options.train_tokenizer && options.tokenizer == "bytes") {
    fail(ExitCode::kUsage, "--train-tokenizer with --tokenizer bytes: name the .model file to be written");
  }
  if (options.threads > 0) set_thread_count(options.threads);
  const auto files = data::find_corpus_files(options.inputs);
  if (options.train_tokenizer) train_vocabulary(options, files);
  const auto tokenizer = data::load_tokenizer(options.tokenizer);

  const auto start = Clock::now();
  ProgressLine line;
  const auto info = data::prepare_shard(files, options.output, *tokenizer,
                                        [&](const data::Progress& progress) { line.show(progress); });
  const double seconds = std::max(1e-9, seconds_since(start));
  // Every document's EOS is a token that stands for no text.
  const double bytes_per_token =
      static_cast<double>(info.utf8_bytes) / static_cast<double>(std::max<int64_t>(1, info.tokens - info.documents));
  log::info(
      "{}.bin: {} documents, {} tokens of {} ids, {:.3f} bytes per token, {:.1f} MB in {:.1f} s, {:.1f} MB/s on {} "
      "threads",
      options.output, info.documents, info.tokens, info.vocab_size, bytes_per_token,
      static_cast<double>(info.utf8_bytes) / 1e6, seconds, static_cast<double>(info.utf8_bytes) / 1e6 / seconds,
      thread_count());
}

}  // namespace

void add_prepare_command(CLI::App& app) {
  auto options = std::make_shared<PrepareOptions>();
  CLI::App* command = app.add_subcommand("prepare", "Tokenises .jsonl and .txt files into token shards.");
  command->footer(
      "Writes OUTPUT.bin and OUTPUT.idx (Megatron's layout) and OUTPUT.json (counts and the tokenizer's hash).\n"
      "Documents are the \"text\" of each line of a .jsonl file, or a whole .txt file.\n"
      "Example:\n"
      "  mhmoe prepare --input data/en-tiny/train.jsonl --output data/en-tiny/train \\\n"
      "                --tokenizer data/en-tiny/tokenizer.model --train-tokenizer --vocab-size 4096\n"
      "  mhmoe prepare --input data/en-tiny/validation.jsonl --output data/en-tiny/validation \\\n"
      "                --tokenizer data/en-tiny/tokenizer.model");
  command->add_option("--input", options->inputs, "files or folders, read in this order")->required();
  command->add_option("--output", options->output, "prefix of the shard to write")->required();
  command->add_option("--tokenizer", options->tokenizer, "a SentencePiece .model file, or `bytes`")->required();
  auto* vocab_size =
      command->add_option("--vocab-size", options->vocab_size, "pieces of the vocabulary to train, 259 to 1000000")
          ->check(CLI::Range(int64_t{259}, int64_t{1000000}));
  auto* train = command->add_flag("--train-tokenizer", options->train_tokenizer,
                                  "first train the tokenizer on the input (BPE with byte fallback) and write it");
  train->needs(vocab_size);
  vocab_size->needs(train);
  command->add_option("--threads", options->threads, "threads; all cores if left out")->check(CLI::Range(1, 1024));
  command->callback([options] { prepare(*options); });
}

}  // namespace mhmoe::cli
