// The only door to libsentencepiece.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizer.h"

namespace mhmoe::data {

// `model` is the serialised model; `path` is for messages. Throws Error(kBadData).
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::string& path, std::string_view model);

// Byte-pair encoding with byte fallback, no normalisation, no dummy prefix: what is encoded decodes to the same bytes.
// `next_line` gives the training text line by line (without newline, at most kMaxTrainingLine bytes) and false at its
// end. The same lines give the same model. Throws Error(kBadData) when the text is too small for `vocab_size`.
inline constexpr size_t kMaxTrainingLine = 4096;
std::string train_sentencepiece(int64_t vocab_size, const std::function<bool(std::string&)>& next_line);

}  // namespace mhmoe::data
