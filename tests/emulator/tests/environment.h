// The emulator's modes are environment variables, read at every launch; and what this build is.
#pragma once

#include <cstdlib>

namespace planted {

constexpr const char* kOrders[] = {"forward", "reversed", "random:1", "random:2"};

enum class Build { kPlain, kAddressSanitizer, kThreadSanitizer };
// clang answers by __has_feature, g++ by macros.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr Build kBuild = Build::kAddressSanitizer;
#elif __has_feature(thread_sanitizer)
constexpr Build kBuild = Build::kThreadSanitizer;
#else
constexpr Build kBuild = Build::kPlain;
#endif
#elif defined(__SANITIZE_ADDRESS__)
constexpr Build kBuild = Build::kAddressSanitizer;
#else
constexpr Build kBuild = Build::kPlain;
#endif
#if defined(__clang__)
constexpr bool kGuardedSharedMemory = true;
#else
constexpr bool kGuardedSharedMemory = false;
#endif

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
