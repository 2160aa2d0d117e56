#include "train/stop_signals.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>

namespace mhmoe::train {
namespace {

constexpr std::array kSignals = {SIGTERM, SIGINT, SIGUSR1};
constexpr int kShellBase = 128;  // as shells report a process that a signal ended
constexpr char kNotice[] = "\nasked to stop: this step is finished and saved first; a second signal stops at once\n";

static_assert(std::atomic<int>::is_always_lock_free, "signal handlers may use nothing else");
std::atomic<int> noted{0};
int installed = 0;
std::array<struct sigaction, kSignals.size()> before;

void note(int signal) {
  int none = 0;
  if (!noted.compare_exchange_strong(none, signal)) _exit(kShellBase + signal);
  const ssize_t written = write(STDERR_FILENO, kNotice, sizeof(kNotice) - 1);
  static_cast<void>(written);  // a closed standard error must not keep a run from stopping
}

}  // namespace

StopSignals::StopSignals() {
  if (installed++ > 0) return;
  noted = 0;
  struct sigaction action {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &before[i]);
}

StopSignals::~StopSignals() {
  if (--installed > 0) return;
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
}

int StopSignals::received() {
  return noted;
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

}  // namespace mhmoe::train
