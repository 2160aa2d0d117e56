#include <algorithm>

#include "core/file.h"
#include "core/philox.h"
#include "data/corpus.h"
#include "data/prepare.h"
#include "data/sentencepiece_tokenizer.h"

namespace mhmoe::data {
namespace {

// The lines of a sample of the corpus, as the trainer of SentencePiece takes them.
class TrainingLines {
 public:
  TrainingLines(const std::vector<std::string>& files, const std::string& text_field)
      : corpus_(files), parser_(text_field), sample_(0, "data/tokenizer_sample") {
    share_ = static_cast<double>(kMaxTrainingBytes) / std::max(1.0, expected_bytes(files));
  }

  bool next(std::string& line) {
    do {
      if (at_ >= text_.size() && !next_text()) return false;
      cut(line);
    } while (line.empty());
    return true;
  }

 private:
  // Text compresses about fourfold.
  static double expected_bytes(const std::vector<std::string>& files) {
    double sum = 0;
    for (const std::string& path : files) {
      sum += static_cast<double>(InputFile(path).size()) * (without_compression(path) == path ? 1 : 4);
    }
    return sum;
  }

  bool next_text() {
    at_ = 0;
    do {
      if (!corpus_.next(document_)) return false;
      text_ = {};
      if (sample_.uniform(number_++) < share_) text_ = parser_.parse(document_, corpus_.files()[document_.file]);
    } while (text_.empty());
    return true;
  }

  // Up to a newline or a tab, which SentencePiece keeps for itself, or the longest line it takes, between characters.
  void cut(std::string& line) {
    const size_t end = std::min(text_.find_first_of("\n\t", at_), text_.size());
    size_t length = std::min(end - at_, kMaxTrainingLine);
    while (at_ + length < end && (static_cast<unsigned char>(text_[at_ + length]) & 0xc0) == 0x80) --length;
    line.assign(text_.substr(at_, length));
    at_ += length + (at_ + length == end ? 1 : 0);
  }

  CorpusReader corpus_;
  DocumentParser parser_;
  Philox sample_;
  double share_;
  RawDocument document_;
  std::string_view text_;
  size_t at_ = 0;
  uint64_t number_ = 0;
};

}  // namespace

void train_tokenizer(const std::vector<std::string>& files, const std::string& text_field, int64_t vocab_size,
                     const std::string& model_path) {
  TrainingLines lines(files, text_field);
  const std::string model = train_sentencepiece(vocab_size, [&](std::string& line) { return lines.next(line); });
  AtomicFile file(model_path);
  file.write(model);
  file.commit();
}

}  // namespace mhmoe::data
