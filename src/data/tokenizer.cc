#include "data/tokenizer.h"

#include "core/error.h"
#include "core/file.h"
#include "data/sentencepiece_tokenizer.h"

namespace mhmoe::data {
namespace {

class ByteTokenizer : public Tokenizer {
 public:
  ByteTokenizer() {
    for (int byte = 0; byte < 256; ++byte) pieces_.emplace_back(1, static_cast<char>(byte));
    pieces_.emplace_back();
    eos_ = 256;
    name_ = "bytes";
    hash_ = 0x6d686d6f65627974u;  // an arbitrary constant: the mapping never changes
  }
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  }
};

}  // namespace

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size())
      fail(ExitCode::kBadData, "token id {} outside the vocabulary of {}", id, vocab_size());
    text += pieces_[id];
  }
  return text;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path_or_bytes) {
  if (path_or_bytes == "bytes") return std::make_unique<ByteTokenizer>();
  return make_sentencepiece_tokenizer(path_or_bytes, InputFile(path_or_bytes).read_whole());
}

}  // namespace mhmoe::data
