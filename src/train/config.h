// From a JSON file to a checked RunConfig and back.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "train/run_config.h"

namespace mhmoe::train {

// Reads FILE and what it extends, applies the overrides ("train.steps=100": the value is JSON, or else a string),
// checks every key and the whole. Throws Error(kConfig) with one line that names file, line and key, what was found and
// what is allowed. An `extends` is a file in the folder of the one that names it, or below; any other path throws
// Error(kPermission).
RunConfig load_config(const std::string& path, std::span<const std::string> overrides = {});

// The same of JSON text that extends nothing, as resolved_config() writes it; `source` stands for FILE in messages.
RunConfig parse_config(std::string_view text, const std::string& source, std::span<const std::string> overrides = {});

// Tells where a key was set, as "FILE:LINE".
using Locate = std::function<std::string(std::string_view path)>;

// What no single key can tell: divisibility, top_k against experts, names, ... load_config calls it.
void validate(
    const RunConfig& config, const Locate& where = [](std::string_view) { return std::string("config"); });

// For commands that train or score text: throws Error(kConfig) unless data.tokenizer and data.train (when training) or
// data.validation (when not) are given.
void require_data(const RunConfig& config, bool training);

// Every key with its value, as indented JSON; load_config of it gives the same RunConfig.
std::string resolved_config(const RunConfig& config);

}  // namespace mhmoe::train
