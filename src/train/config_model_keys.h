// The part of the schema that describes the model. Private to config_schema.cc.
#pragma once

#include <vector>

#include "train/config_schema.h"

namespace mhmoe::train {

std::vector<ConfigKey> model_keys();
std::vector<ConfigKey> moe_layer_keys();
// How tokens find experts, and the expert that all of them use.
std::vector<ConfigKey> moe_routing_keys();

}  // namespace mhmoe::train
