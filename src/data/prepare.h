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

// Tokenises the files (see find_corpus_files) into the shard `prefix`, on all threads, a block of documents at a time.
// The bytes written do not depend on the number of threads.
ShardInfo prepare_shard(const std::vector<std::string>& files, const std::string& prefix, const Tokenizer& tokenizer,
                        const ProgressFunction& progress);

// Trains a byte-pair vocabulary on the files and writes the model to `model_path`. From a corpus of more than
// kMaxTrainingBytes a fixed random sample of documents of about that size is taken.
inline constexpr int64_t kMaxTrainingBytes = int64_t{64} << 20;
void train_tokenizer(const std::vector<std::string>& files, int64_t vocab_size, const std::string& model_path);

}  // namespace mhmoe::data
