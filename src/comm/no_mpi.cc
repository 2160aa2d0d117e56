// Stands for mpi_job.cc and mpi_communicator.cc in builds without MPI.
#include "comm/ranks_job.h"

namespace mhmoe::comm {

std::unique_ptr<RanksJob> start_ranks(int launched) {
  const std::string ranks = launched == 0 ? "a job" : std::to_string(launched) + " ranks";
  fail(ExitCode::kDevice,
       "{} were started, but this program was built without MPI: install Open MPI (libopenmpi-dev, openmpi-bin) and "
       "build "
       "it again",
       ranks);
}

std::string mpi_version() {
  return "none";
}

}  // namespace mhmoe::comm
