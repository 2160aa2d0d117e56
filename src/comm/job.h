// The job of this process: alone, or one rank of many that a launcher started.
#pragma once

#include <optional>
#include <string>

#include "device/job.h"

namespace mhmoe::comm {

// The first call starts MPI, if a launcher says that there is more than one rank, gives this rank its share of the
// machine's cores (call it before other threads exist) and starts the watchdog; every rank makes it. single_job() where
// nothing was launched. Throws Error(kDevice) where MPI is missing or cannot bring the ranks together.
Job& job();

// Of the MPI library that was loaded: "Open MPI v4.1.4"; "none" where the program was built without. Starts nothing.
std::string mpi_version();

// For a job of many ranks; without effect on one.
struct JobSettings {
  int ranks_per_node = 0;  // 0: as MPI says; else consecutive ranks are nodes, and it divides their number
  double timeout_seconds = 600;
};

// All ranks with the same settings, before communicators are made. Throws Error(kConfig).
void configure_job(const JobSettings& settings);

// The normal end, on all ranks: nothing may communicate any more. Waits for the others, watched like a collective.
// Without effect where job() was never called.
void finish_job();

// Every rank throws it, and the job ends by finish_job(): nobody is left waiting.
class AgreedError : public Error {
 public:
  AgreedError(ExitCode code, const std::string& message, int speaker) : Error(code, message), speaker_(speaker) {}

  int speaker() const { return speaker_; }  // the one rank that prints it

 private:
  int speaker_;
};

// All ranks tell how they fared; if any failed, all throw the error of the lowest of them as an AgreedError, which
// names that rank unless all failed alike. On one rank its own error is thrown.
void agree(Job& job, const std::optional<Error>& mine);

// The same of a check that all ranks make by themselves. It must not communicate.
template <class Check>
void agree_after(Job& job, Check&& check) {
  std::optional<Error> mine;
  try {
    check();
  } catch (const Error& error) {
    mine = error;
  }
  agree(job, mine);
}

// The exception being handled, to be called by main's handler: prints its message, once for an agreed one, else behind
// this rank's number, and returns the exit code, or ends the other ranks and this one with it.
ExitCode end_by_exception();

}  // namespace mhmoe::comm
