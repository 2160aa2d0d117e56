#include "train/stop_signals.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <ctime>
#include <limits>

namespace mhmoe::train {
namespace {

constexpr std::array kSignals = {SIGTERM, SIGINT, SIGUSR1};
constexpr int kShellBase = 128;  // as shells report a process that a signal ended
// Within this time it is the same request again: timeout(1) and launchers signal a process and then its group.
constexpr int64_t kSameMilliseconds = 500;
constexpr char kNotice[] =
    "\nasked to stop: this step is finished and saved first; a second SIGTERM or SIGINT stops at once\n";

static_assert(std::atomic<int>::is_always_lock_free, "signal handlers may use nothing else");
std::atomic<int> noted{0};
int installed = 0;
std::array<struct sigaction, kSignals.size()> before;

std::atomic<int64_t> noted_at{0};
static_assert(std::atomic<int64_t>::is_always_lock_free);

int64_t milliseconds() {
  struct timespec now {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

void note(int signal) {
  int none = 0;
  if (!noted.compare_exchange_strong(none, signal)) {
    // SIGUSR1 comes from launchers, which send it until the process ends: mpirun loses what arrives while it starts.
    if (signal != SIGUSR1 && milliseconds() - noted_at > kSameMilliseconds) _exit(kShellBase + signal);
    return;
  }
  noted_at = milliseconds();
  const ssize_t written = write(STDERR_FILENO, kNotice, sizeof(kNotice) - 1);
  static_cast<void>(written);  // a closed standard error must not keep a run from stopping
}

}  // namespace

StopSignals::StopSignals() {
  if (installed++ > 0) return;
  noted = 0;
  noted_at = std::numeric_limits<int64_t>::max();  // until the handler has set it, a repeat is the same request
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
