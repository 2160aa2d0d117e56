// One of the targets as a libFuzzer program.
#include "fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const char* data, size_t size) {
  mhmoe::fuzz::MHMOE_FUZZ_TARGET({data, size});
  return 0;
}
