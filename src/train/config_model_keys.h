// The part of the schema that describes the model. Private to config_schema.cc.
#pragma once

#include <vector>

#include "train/config_schema.h"

namespace mhmoe::train {

std::vector<ConfigKey> model_keys();
std::vector<ConfigKey> moe_keys();

}  // namespace mhmoe::train
