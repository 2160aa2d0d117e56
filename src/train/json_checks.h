// What the readers of strict JSON share: how they name what they found, and where.
#pragma once

#include <string>
#include <string_view>

#include "core/json.h"

namespace mhmoe::train {

// Throws Error(kConfig) "FILE:LINE: PATH: MESSAGE".
[[noreturn]] void fail_at(const json::Value& value, const std::string& path, const std::string& message);

// The value as the user wrote it, cut to a readable length.
std::string found(const json::Value& value);

// A comment is a string or a list of strings; anything else throws.
void check_comment(const json::Value& value, const std::string& path);

// Characters to insert, remove or replace to make one of the other.
size_t edit_distance(std::string_view a, std::string_view b);

// Names with more edits than this are no likely misspelling of `name`.
inline size_t likely_edits(std::string_view name) {
  return name.size() < 6 ? 2 : name.size() / 3;
}

}  // namespace mhmoe::train
