#include "data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <span>
#include <unordered_map>

#include "core/error.h"
#include "core/hash.h"
#include "data/byte_pair_encoder.h"
#include "data/word_cache.h"

namespace mhmoe::data {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581: how pieces write a space

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& path, std::string_view model) {
    const auto status = processor_.LoadFromSerializedProto(model);
    if (!status.ok()) {
      fail(ExitCode::kBadData, "{}: not a SentencePiece model of {} bytes ({})", path, model.size(), status.message());
    }
    eos_ = processor_.eos_id();
    if (eos_ < 0) fail(ExitCode::kBadData, "{}: the model defines no end-of-sentence piece; documents need one", path);
    for (int id = 0; id < processor_.GetPieceSize(); ++id) pieces_.push_back(bytes_of(id));
    name_ = "sentencepiece";
    hash_ = xxh3(model);
    const SentencePieceModel description = parse_sentencepiece_model(model);
    byte_pairs_ = BytePairEncoder::create(description);
    exact_ = has_byte_pieces() && description.keeps_text();
    cuts_lines_ = exact_ && !has_piece_with_newline();
    cuts_words_ = byte_pairs_ != nullptr && !has_piece_with_space_after_word();
  }

  // Line by line where no piece crosses a newline: the ids are the same, and the memory does not grow with the text.
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    size_t newline;
    while (cuts_lines_ && (newline = text.find('\n')) != std::string_view::npos) {
      encode_marks(text.substr(0, newline), ids);
      ids.push_back(byte_ids_['\n']);
      text.remove_prefix(newline + 1);
    }
    encode_marks(text, ids);
  }

 private:
  // A literal U+2581 would decode to a space: spelt as bytes it stays what it is.
  void encode_marks(std::string_view text, std::vector<int32_t>& ids) const {
    size_t mark;
    while (exact_ && (mark = text.find(kSpaceMark)) != std::string_view::npos) {
      encode_words(text.substr(0, mark), ids);
      for (const char c : kSpaceMark) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
      text.remove_prefix(mark + kSpaceMark.size());
    }
    encode_words(text, ids);
  }

  // Word by word, each with the spaces before it, where no piece crosses such a boundary: the ids are the same.
  void encode_words(std::string_view text, std::vector<int32_t>& ids) const {
    thread_local WordCache cache;
    while (cuts_words_ && !text.empty()) {
      const size_t first = std::min(text.find_first_not_of(' '), text.size());
      const std::string_view word = text.substr(0, text.find(' ', first));
      text.remove_prefix(word.size());
      if (word.size() > WordCache::kLongest) {
        append(word, ids);
      } else if (const auto known = cache.find(hash_, word); !known.empty()) {
        ids.insert(ids.end(), known.begin(), known.end());
      } else {
        const size_t before = ids.size();
        append(word, ids);
        cache.put(std::span(ids).subspan(before));
      }
    }
    append(text, ids);
  }

  std::string bytes_of(int id) {
    if (processor_.IsControl(id)) return {};
    std::string piece = processor_.IdToPiece(id);
    if (processor_.IsByte(id)) {  // written <0x0A>
      const auto byte = static_cast<unsigned char>(std::stoi(piece.substr(3, 2), nullptr, 16));
      byte_ids_[byte] = id;
      return {static_cast<char>(byte)};
    }
    if (processor_.IsUnknown(id)) return "\xef\xbf\xbd";
    for (size_t at = 0; (at = piece.find(kSpaceMark, at)) != std::string::npos; ++at) {
      piece.replace(at, kSpaceMark.size(), " ");
    }
    return piece;
  }

  bool has_byte_pieces() const { return std::find(byte_ids_.begin(), byte_ids_.end(), -1) == byte_ids_.end(); }

  bool has_piece_with_newline() const {
    for (int32_t id = 0; id < vocab_size(); ++id) {
      if (id != byte_ids_['\n'] && pieces_[id].find('\n') != std::string::npos) return true;
    }
    return false;
  }

  bool has_piece_with_space_after_word() const {
    return std::any_of(pieces_.begin(), pieces_.end(), [](const std::string& piece) {
      return piece.find(' ', std::min(piece.find_first_not_of(' '), piece.size())) != std::string::npos;
    });
  }

  void append(std::string_view text, std::vector<int32_t>& ids) const {
    if (text.empty()) return;
    if (byte_pairs_) return byte_pairs_->encode(text, ids);
    std::vector<int> some;
    const auto status = processor_.Encode(text, &some);
    if (!status.ok()) fail(ExitCode::kInternal, "SentencePiece could not encode: {}", status.message());
    ids.insert(ids.end(), some.begin(), some.end());
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::vector<int32_t> byte_ids_ = std::vector<int32_t>(256, -1);
  std::unique_ptr<BytePairEncoder> byte_pairs_;  // null: the library encodes
  bool exact_ = false;                           // decode(encode(text)) == text is wanted and possible
  bool cuts_lines_ = false;                      // no piece but the byte's own holds a newline
  bool cuts_words_ = false;                      // no piece holds a space after another character
};

class LineIterator : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::function<bool(std::string&)>& next_line) : next_line_(next_line) { Next(); }
  bool done() const override { return done_; }
  void Next() override { done_ = !next_line_(line_); }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::function<bool(std::string&)>& next_line_;
  std::string line_;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::string& path, std::string_view model) {
  return std::make_unique<SentencePieceTokenizer>(path, model);
}

std::string train_sentencepiece(int64_t vocab_size, const std::function<bool(std::string&)>& next_line) {
  LineIterator lines(next_line);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      std::unordered_map<std::string, std::string>{
          {"model_type", "bpe"},
          {"vocab_size", std::to_string(vocab_size)},
          {"byte_fallback", "true"},
          {"normalization_rule_name", "identity"},
          {"add_dummy_prefix", "false"},
          {"remove_extra_whitespaces", "false"},
          {"allow_whitespace_only_pieces", "true"},
          {"character_coverage", "0.9995"},
          {"max_sentence_length", std::to_string(kMaxTrainingLine)},
          {"unk_id", "0"},
          {"eos_id", "1"},
          {"bos_id", "-1"},
          {"pad_id", "-1"},
          {"num_threads", "1"},
          {"minloglevel", "2"},
      },
      &lines, &model);
  if (!status.ok()) {
    fail(ExitCode::kBadData,
         "cannot train a vocabulary of {} pieces on this text: {}; take more text or a smaller vocabulary", vocab_size,
         status.message());
  }
  return model;
}

}  // namespace mhmoe::data
