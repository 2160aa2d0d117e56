#include "nccl/join.h"

#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "emulator/fault.h"

namespace emulator {
namespace {

using Clock = std::chrono::steady_clock;

struct Id {
  int creator;  // its rank in MPI_COMM_WORLD
  int process, serial;
};
static_assert(sizeof(Id) <= NCCL_UNIQUE_ID_BYTES);

struct Report {
  int rank, size;  // in the communicator
  int from;        // in the world
};

bool mpi_runs() {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  return initialised != 0 && finalised == 0;
}

int world_rank() {
  int rank = 0;
  if (mpi_runs()) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

void wait_for(MPI_Request request, const std::string& what) {
  const Clock::time_point deadline = Clock::now() + patience();
  for (int done = 0; done == 0; sched_yield()) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0 && Clock::now() > deadline) throw Fault("NCCL: " + what);
  }
}

// The world's ranks by rank in the communicator; empty when the ranks do not fit together.
std::vector<int> collect_reports(int tag, int size, int rank) {
  std::vector<int> members(static_cast<size_t>(size), -1), reporters;
  members[static_cast<size_t>(rank)] = world_rank();
  bool fit = true;
  for (int known = 1; known < size; ++known) {
    Report message{};
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Irecv(&message, sizeof(message), MPI_BYTE, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &request);
    wait_for(request, std::to_string(known) + " of " + std::to_string(size) + " ranks joined");
    reporters.push_back(message.from);
    const auto place = static_cast<size_t>(message.rank);
    fit = fit && message.size == size && place < members.size() && members[place] < 0;
    if (fit) members[place] = message.from;
  }
  if (!fit) members.assign(members.size(), -1);
  for (const int reporter : reporters) MPI_Send(members.data(), size, MPI_INT, reporter, tag, MPI_COMM_WORLD);
  return fit ? members : std::vector<int>{};
}

std::vector<int> report(const Id& id, int tag, int size, int rank) {
  const Report message = {rank, size, world_rank()};
  std::vector<int> members(static_cast<size_t>(size));
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Irecv(members.data(), size, MPI_INT, id.creator, tag, MPI_COMM_WORLD, &request);
  MPI_Send(&message, sizeof(message), MPI_BYTE, id.creator, tag, MPI_COMM_WORLD);
  wait_for(request, "the rank that made the unique id did not join");
  return members[0] < 0 ? std::vector<int>{} : members;
}

// Errors come back as codes: what was asked for says more than MPI's own message.
std::shared_ptr<Clique> wrap(MPI_Comm mpi) {
  auto clique = std::make_shared<Clique>();
  clique->mpi = mpi;
  MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN);
  MPI_Comm_rank(mpi, &clique->rank);
  MPI_Comm_size(mpi, &clique->size);
  return clique;
}

}  // namespace

Clock::duration patience() {
  const char* seconds = std::getenv("EMULATOR_NCCL_SECONDS");
  return std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(seconds == nullptr ? 60 : std::atof(seconds)));
}

ncclUniqueId make_unique_id() {
  static int serial = 0;
  const Id id = {world_rank(), getpid(), ++serial};
  ncclUniqueId unique{};
  std::memcpy(unique.internal, &id, sizeof(id));
  return unique;
}

std::shared_ptr<Clique> join(const ncclUniqueId& unique, int size, int rank) {
  if (size == 1) return std::make_shared<Clique>();
  if (!mpi_runs()) throw Fault("NCCL: a communicator of several ranks needs MPI, which is not initialised");
  Id id{};
  std::memcpy(&id, unique.internal, sizeof(id));
  const int tag = 1000 + (id.process * 31 + id.serial) % 10000;
  const auto members = id.creator == world_rank() ? collect_reports(tag, size, rank) : report(id, tag, size, rank);
  if (members.empty()) return nullptr;
  MPI_Group world = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  MPI_Group_incl(world, size, members.data(), &group);
  MPI_Comm mpi = MPI_COMM_NULL;
  MPI_Comm_create_group(MPI_COMM_WORLD, group, tag, &mpi);
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  return wrap(mpi);
}

std::shared_ptr<Clique> split(const Clique& clique, int colour, int key) {
  const bool left_out = colour == NCCL_SPLIT_NOCOLOR;
  if (clique.size == 1) return left_out ? nullptr : std::make_shared<Clique>();
  MPI_Comm mpi = MPI_COMM_NULL;
  MPI_Comm_split(clique.mpi, left_out ? MPI_UNDEFINED : colour, key, &mpi);
  return left_out ? nullptr : wrap(mpi);
}

}  // namespace emulator
