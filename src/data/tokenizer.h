// Text to token ids and back: SentencePiece models, or plain bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mhmoe::data {

// Immutable after construction: every method may be called from many threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the ids of `text` (valid UTF-8) to `ids`; never an EOS.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids) const = 0;
  // The pieces of the ids joined; EOS and other control ids give nothing. Ids outside the vocabulary throw.
  std::string decode(std::span<const int32_t> ids) const;
  // How many bytes of text the id stands for; 0 for control ids.
  int64_t byte_length(int32_t id) const { return static_cast<int64_t>(pieces_.at(id).size()); }

  int64_t vocab_size() const { return static_cast<int64_t>(pieces_.size()); }
  int32_t eos() const { return eos_; }
  const std::string& name() const { return name_; }  // "bytes" or "sentencepiece"
  // XXH3-64 of the model: equal hashes mean equal ids for every text.
  uint64_t hash() const { return hash_; }

 protected:
  std::vector<std::string> pieces_;  // by id: the bytes each stands for
  std::string name_;
  uint64_t hash_ = 0;
  int32_t eos_ = 0;
};

// "bytes" (ids 0 to 255 are the bytes, 256 is EOS), or the path of a SentencePiece .model that defines EOS.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path_or_bytes);

}  // namespace mhmoe::data
