#include "data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <span>
#include <unordered_map>

#include "core/error.h"
#include "core/hash.h"

namespace mhmoe::data {
namespace {

// What a thread has encoded before with one model. Text repeats its words: this is several times as fast as the
// library.
class WordCache {
 public:
  // Forgets all when another model asks, and when it has grown large.
  const std::vector<int32_t>* find(uint64_t model, std::string_view word) {
    if (model != model_ || words_.size() >= kMostWords) words_.clear();
    model_ = model;
    const auto at = words_.find(word);
    return at == words_.end() ? nullptr : &at->second;
  }
  void add(std::string_view word, std::span<const int32_t> ids) {
    words_.try_emplace(std::string(word), ids.begin(), ids.end());
  }

 private:
  static constexpr size_t kMostWords = size_t{1} << 17;
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return xxh3(word); }
  };
  std::unordered_map<std::string, std::vector<int32_t>, Hash, std::equal_to<>> words_;
  uint64_t model_ = 0;
};

constexpr size_t kLongestCachedWord = 32;
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
    exact_ = has_byte_pieces() && !adds_dummy_prefix();
    cuts_lines_ = exact_ && !has_piece_with_newline();
    cuts_words_ = exact_ && !has_piece_with_space_after_word();
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
      const auto* known = word.size() <= kLongestCachedWord ? cache.find(hash_, word) : nullptr;
      if (known != nullptr) {
        ids.insert(ids.end(), known->begin(), known->end());
      } else {
        const size_t before = ids.size();
        append(word, ids);
        if (word.size() <= kLongestCachedWord) cache.add(word, std::span(ids).subspan(before));
      }
      text.remove_prefix(word.size());
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

  bool adds_dummy_prefix() const {
    std::vector<int32_t> ids;
    append("a", ids);
    return decode(ids) != "a";
  }

  void append(std::string_view text, std::vector<int32_t>& ids) const {
    if (text.empty()) return;
    std::vector<int> some;
    const auto status = processor_.Encode(text, &some);
    if (!status.ok()) fail(ExitCode::kInternal, "SentencePiece could not encode: {}", status.message());
    ids.insert(ids.end(), some.begin(), some.end());
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::vector<int32_t> byte_ids_ = std::vector<int32_t>(256, -1);
  bool exact_ = false;       // decode(encode(text)) == text is wanted and possible
  bool cuts_lines_ = false;  // no piece but the byte's own holds a newline
  bool cuts_words_ = false;  // no piece holds a space after another character
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
