#include "illegal_access.h"

#include <csignal>
#include <string>

#include "memory.h"
#include "races.h"
#include "scheduler.h"

// Present only in programs built with AddressSanitizer.
extern "C" [[gnu::weak]] void __asan_poison_memory_region(const volatile void* memory, size_t bytes);

namespace emulator {
namespace {

struct sigaction previous;
bool watching = false;

// On the stack of the thread that made the access, which is left for good.
void handle(int /*signal*/, siginfo_t* info, void* /*context*/) {
  if (scheduler().running()) {
    std::string what = memory().describe_forbidden(info->si_addr);
    if (!what.empty()) scheduler().fault("a kernel touches " + what);
  }
  sigaction(SIGSEGV, &previous, nullptr);  // and the access happens again
}

// The handler goes with its module.
[[gnu::destructor]] void stop_watching() {
  struct sigaction now {};
  if (watching && sigaction(SIGSEGV, nullptr, &now) == 0 && now.sa_sigaction == handle) {
    sigaction(SIGSEGV, &previous, nullptr);
  }
}

}  // namespace

void watch_illegal_accesses() {
  if (watching || races::watched() || __asan_poison_memory_region != nullptr) return;
  watching = true;
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;  // the handler does not return
  sigaction(SIGSEGV, &action, &previous);
}

}  // namespace emulator
