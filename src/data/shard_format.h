// The fixed part of a .idx file, little endian. After it: int32 sizes[count], int64 pointers[count] (byte offsets in
// the .bin file) and int64 documents[document_entries] (the first sequence of each document, and the end).
#pragma once

#include <array>
#include <cstdint>

namespace mhmoe::data::shard_format {

inline constexpr std::array<char, 9> kMagic = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
inline constexpr uint64_t kVersion = 1;
inline constexpr uint8_t kInt32 = 4, kUint16 = 8;  // dtype codes

inline constexpr int64_t kVersionAt = 9, kDTypeAt = 17, kCountAt = 18, kDocumentEntriesAt = 26, kHeaderBytes = 34;
inline constexpr int64_t kNarrowVocabLimit = 65500;

}  // namespace mhmoe::data::shard_format
