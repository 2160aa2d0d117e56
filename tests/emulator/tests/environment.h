// The emulator's modes are environment variables, read at every launch.
#pragma once

#include <cstdlib>

namespace planted {

constexpr const char* kOrders[] = {"forward", "reversed", "random:1", "random:2"};

// Sets a variable until the end of a scope.
class WithVariable {
 public:
  WithVariable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~WithVariable() { unsetenv(name_); }
  WithVariable(const WithVariable&) = delete;
  WithVariable& operator=(const WithVariable&) = delete;

 private:
  const char* name_;
};

}  // namespace planted
