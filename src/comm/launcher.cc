#include "comm/launcher.h"

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <string_view>

#include "core/error.h"

namespace mhmoe::comm {
namespace {

std::optional<int> number_in(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr) return {};
  const std::string_view text(value);
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return number;
}

// Set by srun for the processes it starts, not for a batch script that calls mpirun or this program.
constexpr const char* kSlurmTasks = "SLURM_STEP_NUM_TASKS";

}  // namespace

bool launched() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (number_in(variable)) return true;
  }
  return false;
}

std::optional<int> launched_ranks() {
  if (!launched()) return {};
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", kSlurmTasks}) {
    if (const std::optional<int> ranks = number_in(variable)) return ranks;
  }
  return {};
}

void check_launcher() {
  const int tasks = number_in(kSlurmTasks).value_or(1);
  if (tasks > 1 && !launched()) {
    fail(ExitCode::kDevice,
         "srun started {} processes that know nothing of each other; start them by srun --mpi=pmix (srun --mpi=list "
         "shows what this cluster has), or by mpirun in the batch script",
         tasks);
  }
}

}  // namespace mhmoe::comm
