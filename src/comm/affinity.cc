#include "comm/affinity.h"

#include <fmt/core.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "core/parallel_for.h"

namespace mhmoe::comm {
namespace {

std::vector<int> cores_of(pid_t process) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<int> cores;
  if (sched_getaffinity(process, sizeof(mask), &mask) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &mask)) cores.push_back(core);
  }
  return cores;
}

// More ranks than cores share all of them.
std::vector<int> share_of(const std::vector<int>& cores, int rank, int ranks) {
  const auto count = static_cast<int>(cores.size());
  if (ranks > count) return cores;
  return {cores.begin() + count * rank / ranks, cores.begin() + count * (rank + 1) / ranks};
}

bool bind_to(const std::vector<int>& cores) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int core : cores) CPU_SET(core, &mask);
  return sched_setaffinity(0, sizeof(mask), &mask) == 0;
}

}  // namespace

std::string spread_over_cores(int local_rank, int ranks_here) {
  const std::vector<int> own = cores_of(0);
  // The launcher's daemon started this process and has the mask of before.
  std::vector<int> share = share_of(cores_of(getppid()), local_rank, ranks_here);
  if (share.size() <= own.size() || !bind_to(share)) share = own;
  int threads = static_cast<int>(share.size()) / (ranks_here > static_cast<int>(share.size()) ? ranks_here : 1);
  threads = std::max(1, threads);
  if (std::getenv("OMP_NUM_THREADS") == nullptr) set_thread_count(threads);
  if (share.size() == own.size()) return {};
  return fmt::format("{} of {} cores instead of the launcher's {}; {} threads", share.size(),
                     cores_of(getppid()).size(), own.size(), thread_count());
}

}  // namespace mhmoe::comm
