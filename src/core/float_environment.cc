#include "core/float_environment.h"

#include <cfenv>

namespace mhmoe {

void fix_float_environment() {
  std::fesetenv(FE_DFL_ENV);
}

}  // namespace mhmoe
