// A merged tree of JSON against the schema.
#pragma once

#include "core/json.h"
#include "train/run_config.h"

namespace mhmoe::train {

// Throws Error(kConfig) for unknown keys (with the nearest valid one), wrong types and values out of range.
RunConfig read_tree(const json::Value& tree);

}  // namespace mhmoe::train
