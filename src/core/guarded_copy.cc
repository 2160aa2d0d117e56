#include "core/guarded_copy.h"

#include <atomic>
#include <csetjmp>
#include <csignal>
#include <cstring>

namespace mhmoe {
namespace {

struct Guard {
  sigjmp_buf back;
  const char* begin;
  const char* end;
};

thread_local Guard* guard = nullptr;  // of the copy that this thread is in
struct sigaction earlier {};

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const auto* at = static_cast<const char*>(info->si_addr);
  if (guard != nullptr && at >= guard->begin && at < guard->end) siglongjmp(guard->back, 1);
  if ((earlier.sa_flags & SA_SIGINFO) != 0) {
    earlier.sa_sigaction(signal, info, context);
  } else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
    earlier.sa_handler(signal);
  } else {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

// SA_NODEFER: the signal stays unblocked in the handler, so that leaving it by a jump has no mask to restore.
bool install_handler() {
  struct sigaction ours {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  return sigaction(SIGBUS, &ours, &earlier) == 0;
}

}  // namespace

bool guarded_copy(void* out, const void* map, size_t bytes) {
  [[maybe_unused]] static const bool installed = install_handler();
  Guard here;
  here.begin = static_cast<const char*>(map);
  here.end = here.begin + bytes;
  if (sigsetjmp(here.back, 0) != 0) {
    guard = nullptr;
    return false;
  }
  guard = &here;
  // The compiler knows of no reader of `guard` in between.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  std::memcpy(out, map, bytes);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  guard = nullptr;
  return true;
}

}  // namespace mhmoe
