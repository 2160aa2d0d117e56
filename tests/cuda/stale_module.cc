// A module of another version: its entry point must not be called.
#include <cstdlib>

#define EXPORT __attribute__((visibility("default")))

extern "C" {
extern EXPORT const char mhmoe_backend_interface[];
const char mhmoe_backend_interface[] = "0123456789abcdef";
EXPORT const void* mhmoe_backend_entry() {
  std::abort();
}
}
