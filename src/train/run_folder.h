// The folder of one run: OUTPUT_DIR/NAME.
#pragma once

#include <string>

#include "train/run_config.h"

namespace mhmoe::train {

inline constexpr const char* kModelFileName = "model.safetensors";
inline constexpr const char* kConfigFileName = "config.json";
inline constexpr const char* kLogFileName = "log.txt";

std::string run_folder(const RunConfig& config);

// Throws Error(kCannotCreate) when the folder holds anything, unless `overwrite`. Creates nothing.
void check_run_folder(const std::string& folder, bool overwrite);

// Creates the folder; what an earlier run left under the names a run writes is removed, other files stay.
void create_run_folder(const std::string& folder);

void write_text_file(const std::string& path, const std::string& text);

}  // namespace mhmoe::train
