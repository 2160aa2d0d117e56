// What becomes of training text whose checksum is wrong.
#pragma once

#include <cstdint>

namespace mhmoe::data {

// What to do about a sequence that a damaged block holds a part of: stop, or take the next sequence of the shard that
// none does. Which one that is depends on the file alone, so a resumed run takes the same.
enum class OnBadBlock : uint8_t { kStop, kSkip };

}  // namespace mhmoe::data
