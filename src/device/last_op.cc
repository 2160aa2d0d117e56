#include "device/last_op.h"

namespace mhmoe {
namespace {

std::string_view name_of_last;

}  // namespace

void set_last_op(std::string_view name) {
  name_of_last = name;
}

std::string_view last_op() {
  return name_of_last;
}

}  // namespace mhmoe
