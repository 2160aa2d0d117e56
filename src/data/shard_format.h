// Fixed parts of the files that hold tokens, little endian.
// Megatron's .idx: the header below, int32 sizes[count], int64 pointers[count] (byte offsets in the .bin file), int64
// documents[entries] (the first sequence of each document, and the end); in multi-modal sets int8 modes[count].
// llm.c's .bin: a header of 256 int32 (magic, version, number of tokens, zeros), then the tokens.
#pragma once

#include <array>
#include <cstdint>

namespace mhmoe::data::shard_format {

inline constexpr std::array<char, 9> kMagic = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
inline constexpr uint64_t kVersion = 1;
inline constexpr uint8_t kInt32 = 4, kUint16 = 8;  // dtype codes of the files we write

inline constexpr int64_t kVersionAt = 9, kDTypeAt = 17, kCountAt = 18, kEntriesAt = 26, kHeaderBytes = 34;
inline constexpr int64_t kNarrowVocabLimit = 65500;

inline constexpr int64_t kLlmcHeaderBytes = 1024;
inline constexpr uint32_t kLlmcMagic16 = 20240520, kLlmcVersion16 = 1;  // GPT-2's ids, uint16
inline constexpr uint32_t kLlmcMagic32 = 20240801, kLlmcVersion32 = 7;  // Llama 3's ids, uint32

}  // namespace mhmoe::data::shard_format
