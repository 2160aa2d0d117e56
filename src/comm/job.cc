#include "comm/job.h"

#include <charconv>
#include <chrono>
#include <exception>
#include <new>
#include <thread>

#include "comm/affinity.h"
#include "comm/launcher.h"
#include "comm/ranks_job.h"
#include "core/log.h"
#include "core/rank.h"

namespace mhmoe::comm {
namespace {

// None: not started, or this process is alone.
std::unique_ptr<RanksJob>& ranks_job() {
  static std::unique_ptr<RanksJob> job;
  return job;
}

// mpirun alone binds without being asked to.
void spread(const Job& job) {
  if (!launched()) return;
  const std::string cores = spread_over_cores(job.local_rank(), job.ranks_per_node());
  if (job.rank() == 0 && !cores.empty()) log::info("cores of a rank: {}", cores);
}

Job& start() {
  check_launcher();
  const int ranks = launched_ranks().value_or(0);
  if (!launched() || ranks == 1) {
    spread(single_job());
    return single_job();
  }
  ranks_job() = start_ranks(ranks);
  log::set_rank(ranks_job()->rank());
  spread(*ranks_job());
  return *ranks_job();
}

// A code and a message as one text, and back.
std::string pack(const std::optional<Error>& error) {
  return error ? fmt::format("{} {}", static_cast<int>(error->code()), error->what()) : "";
}

Error unpack(const std::string& text) {
  int code = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), code);
  MHMOE_CHECK(error == std::errc() && *end == ' ', "a rank's error cannot be read: {}", text);
  return {static_cast<ExitCode>(code), end + 1};
}

bool many_ranks() {
  return ranks_job() != nullptr || launched_ranks().value_or(1) > 1;
}

// Where another rank of this machine, or this one's watchdog, has reported already, it is ending this process, within 2
// s and the scheduler's delays.
ExitCode end_alone(ExitCode code, std::string_view message) {
  RanksJob* job = ranks_job().get();
  if (job != nullptr && !job->claim_report()) std::this_thread::sleep_for(std::chrono::seconds(4));
  log::error("{}{}", many_ranks() ? fmt::format("rank {}: ", process_rank()) : "", message);
  if (job != nullptr) job->abort(code);
  return code;
}

// What every rank throws alike.
ExitCode end_together(ExitCode code, std::string_view message, int speaker) {
  const RanksJob* job = ranks_job().get();
  if ((job == nullptr ? 0 : job->rank()) == speaker) {
    log::write(code == ExitCode::kRequeue ? log::Level::kInfo : log::Level::kError, message);
  }
  finish_job();
  return code;
}

}  // namespace

Job& job() {
  static Job& started = start();
  return started;
}

void configure_job(const JobSettings& settings) {
  if (ranks_job() != nullptr) ranks_job()->configure(settings);
}

void finish_job() {
  if (ranks_job() != nullptr) ranks_job()->finish();
}

void agree(Job& job, const std::optional<Error>& mine) {
  if (job.size() == 1) {
    if (mine) throw Error(*mine);
    return;
  }
  const std::vector<std::string> all = job.gather(pack(mine));
  size_t speaker = 0;
  while (speaker < all.size() && all[speaker].empty()) ++speaker;
  if (speaker == all.size()) return;
  bool alike = true;
  for (const std::string& other : all) alike = alike && other == all[speaker];
  const Error error = unpack(all[speaker]);
  throw AgreedError(error.code(), alike ? error.what() : fmt::format("rank {}: {}", speaker, error.what()),
                    static_cast<int>(speaker));
}

ExitCode end_by_exception() {
  try {
    throw;
  } catch (const AgreedError& error) {
    return end_together(error.code(), error.what(), error.speaker());
  } catch (const Error& error) {
    // Stopping is agreed on by the ranks: what was asked for, no error.
    if (error.code() == ExitCode::kRequeue) return end_together(error.code(), error.what(), 0);
    return end_alone(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return end_alone(ExitCode::kMemory,
                     "out of memory on the host; use smaller micro-batches (train.micro_batch_sequences)");
  } catch (const std::exception& error) {
    return end_alone(ExitCode::kInternal, fmt::format("internal error: {}; please report it", error.what()));
  }
}

}  // namespace mhmoe::comm
