// The floating-point mode that every result rests on: rounding to nearest, numbers below the smallest normal one kept.
#pragma once

#include "core/api.h"

namespace mhmoe {

// Sets it on the calling thread, and so on every thread that this one starts from now on. Libraries that were compiled
// with -ffast-math change it when they are loaded: called at the program's start and after a module was loaded.
MHMOE_API void fix_float_environment();

}  // namespace mhmoe
