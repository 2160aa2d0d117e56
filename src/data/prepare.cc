#include "data/prepare.h"

#include <algorithm>

#include "core/file.h"
#include "core/parallel_for.h"
#include "core/philox.h"
#include "data/corpus.h"
#include "data/sentencepiece_tokenizer.h"

namespace mhmoe::data {
namespace {

constexpr size_t kBlockBytes = size_t{8} << 20;
constexpr size_t kBlockDocuments = 8192;

// Fills `texts`, whose strings are reused, with the next documents; returns how many there are.
size_t read_block(CorpusReader& corpus, std::vector<std::string>& texts) {
  size_t count = 0, bytes = 0;
  while (count < kBlockDocuments && bytes < kBlockBytes) {
    if (count == texts.size()) texts.emplace_back();
    if (!corpus.next(texts[count])) break;
    bytes += texts[count++].size();
  }
  return count;
}

// The lines of a sample of the corpus, as the trainer of SentencePiece takes them.
class TrainingLines {
 public:
  explicit TrainingLines(const std::vector<std::string>& files) : corpus_(files), sample_(0, "data/tokenizer_sample") {
    share_ = static_cast<double>(kMaxTrainingBytes) / static_cast<double>(std::max<int64_t>(1, corpus_.bytes_total()));
  }

  bool next(std::string& line) {
    do {
      if (at_ >= text_.size() && !next_text()) return false;
      cut(line);
    } while (line.empty());
    return true;
  }

 private:
  bool next_text() {
    at_ = 0;
    do {
      if (!corpus_.next(text_)) return false;
    } while (sample_.uniform(document_++) >= share_ || text_.empty());
    return true;
  }

  // Up to a newline or a tab, which SentencePiece keeps for itself, or the longest line it takes, between characters.
  void cut(std::string& line) {
    const size_t end = std::min(text_.find_first_of("\n\t", at_), text_.size());
    size_t length = std::min(end - at_, kMaxTrainingLine);
    while (at_ + length < end && (static_cast<unsigned char>(text_[at_ + length]) & 0xc0) == 0x80) --length;
    line.assign(text_, at_, length);
    at_ += length + (at_ + length == end ? 1 : 0);
  }

  CorpusReader corpus_;
  Philox sample_;
  double share_;
  std::string text_;
  size_t at_ = 0;
  uint64_t document_ = 0;
};

}  // namespace

ShardInfo prepare_shard(const std::vector<std::string>& files, const std::string& prefix, const Tokenizer& tokenizer,
                        const ProgressFunction& progress) {
  CorpusReader corpus(files);
  ShardWriter writer(prefix, tokenizer);
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> ids;
  while (const size_t count = read_block(corpus, texts)) {
    ids.resize(std::max(ids.size(), count));
    parallel_tasks(static_cast<int64_t>(count), [&](int64_t i, int) {
      ids[i].clear();
      tokenizer.encode(texts[i], ids[i]);
    });
    for (size_t i = 0; i < count; ++i) writer.add_document(ids[i], static_cast<int64_t>(texts[i].size()));
    progress({corpus.bytes_read(), corpus.bytes_total()});
  }
  return writer.finish();
}

void train_tokenizer(const std::vector<std::string>& files, int64_t vocab_size, const std::string& model_path) {
  TrainingLines lines(files);
  const std::string model = train_sentencepiece(vocab_size, [&](std::string& line) { return lines.next(line); });
  AtomicFile file(model_path);
  file.write(model);
  file.commit();
}

}  // namespace mhmoe::data
