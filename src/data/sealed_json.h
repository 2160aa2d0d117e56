// JSON files that prove their own bytes: the last member, "checksum", is the XXH3-64 of all text before it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace mhmoe::data {

// The text of a file that holds the members of `object` and their checksum.
std::string seal(const json::Value& object);
// The members again. Throws Error(kBadData) unless every byte is as seal() wrote it; `remedy` ends that message.
json::Value unseal(std::string_view text, const std::string& path, std::string_view remedy);

// Members of an unsealed object; each throws Error(kBadData) naming what was expected.
int64_t count_member(const json::Value& object, const char* name);  // an integer >= 0
const json::Value& object_member(const json::Value& object, const char* name);
const std::string& string_member(const json::Value& object, const char* name);
uint64_t hash_member(const json::Value& object, const char* name);  // 16 hexadecimal digits
std::vector<uint64_t> hashes_member(const json::Value& object, const char* name);

}  // namespace mhmoe::data
