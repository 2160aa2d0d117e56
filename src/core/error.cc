#include "core/error.h"

namespace mhmoe {

Error::Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
Error::~Error() = default;

}  // namespace mhmoe
