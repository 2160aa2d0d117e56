// The seam between the program's job and MPI, which may be absent (no_mpi.cc).
#pragma once

#include <memory>

#include "comm/job.h"

namespace mhmoe::comm {

class RanksJob : public Job {
 public:
  virtual void configure(const JobSettings& settings) = 0;
  virtual void finish() = 0;
  // True for the first rank of the machine that reports the job's end.
  virtual bool claim_report() = 0;
};

// launched: the ranks that the launcher says there are; 0: it does not say.
std::unique_ptr<RanksJob> start_ranks(int launched);

}  // namespace mhmoe::comm
