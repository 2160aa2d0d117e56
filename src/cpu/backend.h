// The CPU backend, built into every executable.
#pragma once

#include "device/backend.h"

namespace mhmoe::cpu {

const Backend& backend();

}  // namespace mhmoe::cpu
