// From text files to a token shard, and from text files to a vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/shards.h"
#include "data/tokenizer.h"

namespace mhmoe::data {

struct Progress {
  int64_t bytes_read = 0;  // of the input files
  int64_t bytes_total = 0;
};
using ProgressFunction = std::function<void(const Progress&)>;

struct PrepareOptions {
  std::string text_field;  // see DocumentParser
  bool overwrite = false;
  size_t block_documents = 16384;              // at most that many are tokenised at a time
  int64_t durable_bytes = int64_t{256} << 20;  // of text, between two points that an interrupted run goes on from
  ProgressFunction progress = [](const Progress&) {};
};

struct PrepareResult {
  ShardInfo info;
  bool up_to_date = false;          // the shard was there already
  int64_t continued_documents = 0;  // made by a run that was interrupted
  int64_t continued_bytes = 0;      // of their text
};

// Tokenises the files (see find_corpus_files) into the shard `prefix`, on all threads, a block of documents at a time.
// The bytes written do not depend on the number of threads, nor on interruptions: what a killed run has made is kept in
// PREFIX.bin.partial, PREFIX.sizes.partial and PREFIX.progress.json, and the same call goes on from there. A shard that
// it made before is left as it is. Anything else at `prefix` is Error(kCannotCreate) unless options.overwrite.
// Memory: two blocks of 16 MiB of text, or of one document of up to kMaxDocumentBytes, with its tokens.
PrepareResult prepare_shard(const std::vector<std::string>& files, const std::string& prefix,
                            const Tokenizer& tokenizer, const PrepareOptions& options);

// True if PREFIX is a shard, or the beginning of one, that prepare_shard made of these files with this tokenizer: then
// training the tokenizer again would give the same one.
bool was_prepared(const std::vector<std::string>& files, const std::string& prefix, const Tokenizer& tokenizer,
                  const std::string& text_field);

// Trains a byte-pair vocabulary on the files and writes the model to `model_path`. From a corpus of more than
// kMaxTrainingBytes a fixed random sample of documents of about that size is taken.
inline constexpr int64_t kMaxTrainingBytes = int64_t{64} << 20;
void train_tokenizer(const std::vector<std::string>& files, const std::string& text_field, int64_t vocab_size,
                     const std::string& model_path);

}  // namespace mhmoe::data
