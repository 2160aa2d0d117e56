#include <mpi.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "comm/hierarchy.h"
#include "comm/mpi_check.h"
#include "comm/mpi_communicator.h"
#include "comm/mpi_counts.h"
#include "comm/ranks_job.h"
#include "comm/watchdog.h"
#include "core/float_environment.h"

namespace mhmoe::comm {
namespace {

constexpr std::chrono::seconds kForcedEnd(2);
// The launcher forwards what was printed; what comes with a process's end may be lost.
constexpr std::chrono::milliseconds kForwarding(100);

[[noreturn]] void exit_at_once(ExitCode code) {
  _exit(static_cast<int>(code));
}

// Whatever hangs, this process ends.
void exit_later(ExitCode code) {
  try {
    std::thread([code] {
      std::this_thread::sleep_for(kForcedEnd);
      exit_at_once(code);
    }).detach();
  } catch (const std::system_error&) {
    exit_at_once(code);
  }
}

[[noreturn]] void end_all_ranks(ExitCode code, const std::function<void()>& last) {
  exit_later(code);
  last();
  std::this_thread::sleep_for(kForwarding);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  exit_at_once(code);
}

void start_mpi(int launched) {
  int provided = 0;
  // The watchdog's thread may call MPI_Abort while another is within MPI.
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  fix_float_environment();  // it may have loaded libraries that changed it
  int size = 0;
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  if (launched != 0 && size != launched) {
    fail(ExitCode::kDevice,
         "the launcher started {} ranks, MPI knows of {}: mpirun and the MPI that this program was built with are not "
         "the same",
         launched, size);
  }
}

struct Place {
  int rank = 0, size = 1;
  std::vector<int> machine;  // the ranks of this machine, ascending
};

Place find_place(MPI_Comm machine) {
  Place place;
  int count = 0;
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &place.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &place.size), "MPI_Comm_size");
  check_mpi(MPI_Comm_size(machine, &count), "MPI_Comm_size");
  place.machine.resize(static_cast<size_t>(count));
  check_mpi(MPI_Allgather(&place.rank, 1, MPI_INT, place.machine.data(), 1, MPI_INT, machine), "MPI_Allgather");
  return place;
}

Board share_board(MPI_Comm machine, const Place& place) {
  const auto ranks = static_cast<int>(place.machine.size());
  const bool creates = place.rank == place.machine.front();
  std::optional<Board> board;
  if (creates) board.emplace(Board::create(ranks));
  std::array<char, 64> name{};
  if (creates) board->name().copy(name.data(), name.size() - 1);
  check_mpi(MPI_Bcast(name.data(), name.size(), MPI_CHAR, 0, machine), "MPI_Bcast");
  if (!creates) board.emplace(Board::open(name.data(), ranks));
  check_mpi(MPI_Barrier(machine), "MPI_Barrier");
  if (creates) board->unlink();
  return std::move(*board);
}

class MpiJob final : public RanksJob {
 public:
  MpiJob(const Place& place, Board board)
      : place_(place),
        world_(static_cast<size_t>(place.size)),
        watchdog_(std::move(board), place.machine, place.rank, end_all_ranks) {
    std::iota(world_.begin(), world_.end(), 0);
    find_nodes();
  }

  int rank() const override { return place_.rank; }
  int size() const override { return place_.size; }
  int local_rank() const override { return local_rank_; }
  int ranks_per_node() const override { return ranks_here_; }
  int node() const override { return node_; }
  int nodes() const override { return nodes_; }

  void broadcast(void* data, size_t bytes, int root) override {
    watched("broadcast", static_cast<int64_t>(bytes), [&] {
      const Block block(static_cast<int64_t>(bytes));
      check_mpi(MPI_Bcast(data, block.count(), block.type(), root, MPI_COMM_WORLD), "MPI_Bcast");
    });
  }
  std::vector<std::string> gather(const std::string& mine) override {
    std::vector<std::string> all(world_.size());
    watched("gather", -1, [&] { gather_texts(mine, all); });
    return all;
  }
  void sum(std::span<int64_t> values) override { reduce("sum", values, MPI_SUM); }
  void maximum(std::span<int64_t> values) override { reduce("maximum", values, MPI_MAX); }

  void send(const void* data, size_t bytes, int to) override {
    message(to, [&] {
      const Block block(static_cast<int64_t>(bytes));
      check_mpi(MPI_Send(data, block.count(), block.type(), to, 0, MPI_COMM_WORLD), "MPI_Send");
    });
  }
  void receive(void* data, size_t bytes, int from) override {
    message(from, [&] {
      const Block block(static_cast<int64_t>(bytes));
      check_mpi(MPI_Recv(data, block.count(), block.type(), from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv");
    });
  }
  std::unique_ptr<Communicator> create_host_communicator(std::span<const int> ranks) override {
    return make_mpi_communicator(ranks, place_.rank, watchdog_);
  }

  Monitor& monitor() override { return watchdog_; }
  void abort(ExitCode code) override {
    std::fflush(nullptr);
    end_all_ranks(code, [] {});
  }

  void configure(const JobSettings& settings) override {
    watchdog_.set_timeout(settings.timeout_seconds);
    if (settings.ranks_per_node != 0) divide(settings.ranks_per_node);
    watchdog_.set_nodes(agree_on_name(), node_of_rank_);
  }
  void finish() override {
    watched("finish", 0, [] { check_mpi(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier"); });
    check_mpi(MPI_Finalize(), "MPI_Finalize");
  }
  bool claim_report() override { return watchdog_.claim_report(); }

 private:
  template <class Call>
  void watched(std::string_view kind, int64_t bytes, Call&& call) {
    watchdog_.enter(world_, kind, bytes, "");
    call();
    watchdog_.leave();
  }
  // Between two ranks.
  template <class Call>
  void message(int peer, Call&& call) {
    const std::array<int, 2> both{std::min(peer, place_.rank), std::max(peer, place_.rank)};
    watchdog_.enter(both, "message", -1, "");
    call();
    watchdog_.leave();
  }
  void reduce(std::string_view kind, std::span<int64_t> values, MPI_Op op) {
    watched(kind, static_cast<int64_t>(values.size()), [&] {
      const int count = int_count(static_cast<int64_t>(values.size()), kind);
      check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data(), count, MPI_INT64_T, op, MPI_COMM_WORLD), "MPI_Allreduce");
    });
  }
  static void gather_texts(const std::string& mine, std::vector<std::string>& all) {
    const int length = int_count(static_cast<int64_t>(mine.size()), "gather");
    std::vector<int> lengths(all.size()), begins(all.size());
    check_mpi(MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, MPI_COMM_WORLD), "MPI_Allgather");
    const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    std::string texts(static_cast<size_t>(int_count(total, "gather")), 0);
    std::exclusive_scan(lengths.begin(), lengths.end(), begins.begin(), 0);
    check_mpi(MPI_Allgatherv(mine.data(), length, MPI_CHAR, texts.data(), lengths.data(), begins.data(), MPI_CHAR,
                             MPI_COMM_WORLD),
              "MPI_Allgatherv");
    for (size_t i = 0; i < all.size(); ++i) {
      all[i] = texts.substr(static_cast<size_t>(begins[i]), static_cast<size_t>(lengths[i]));
    }
  }

  // Machines in order of their lowest ranks.
  void find_nodes() {
    std::vector<int> lowest(world_.size());
    check_mpi(MPI_Allgather(place_.machine.data(), 1, MPI_INT, lowest.data(), 1, MPI_INT, MPI_COMM_WORLD),
              "MPI_Allgather");
    std::map<int, int> numbers;
    for (const int rank : lowest) numbers.emplace(rank, 0);
    for (auto& [rank, number] : numbers) number = nodes_++;
    for (const int rank : lowest) machine_of_rank_.push_back(numbers[rank]);
    node_of_rank_ = machine_of_rank_;
    node_ = numbers[place_.machine.front()];
    ranks_here_ = static_cast<int>(place_.machine.size());
    local_rank_ = static_cast<int>(std::lower_bound(place_.machine.begin(), place_.machine.end(), place_.rank) -
                                   place_.machine.begin());
  }
  void divide(int ranks) {
    node_of_rank_ = divide_into_nodes(machine_of_rank_, ranks);
    ranks_here_ = ranks;
    nodes_ = place_.size / ranks;
    node_ = place_.rank / ranks;
    local_rank_ = place_.rank % ranks;
  }
  // A number for this job that no other has had.
  uint64_t agree_on_name() {
    std::random_device random;
    uint64_t name = uint64_t{random()} << 32 | random();
    broadcast(&name, sizeof(name), 0);
    return name;
  }

  Place place_;
  std::vector<int> world_;
  Watchdog watchdog_;
  std::vector<int> machine_of_rank_, node_of_rank_;
  int local_rank_ = 0, ranks_here_ = 1, node_ = 0, nodes_ = 0;
};

}  // namespace

std::unique_ptr<RanksJob> start_ranks(int launched) {
  start_mpi(launched);
  MPI_Comm machine = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine),
            "MPI_Comm_split_type");
  const Place place = find_place(machine);
  Board board = share_board(machine, place);
  MPI_Comm_free(&machine);
  return std::make_unique<MpiJob>(place, std::move(board));
}

// Its text goes on with the package, the date and the like.
std::string mpi_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  check_mpi(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  const std::string_view whole(text.data(), static_cast<size_t>(length));
  return std::string(whole.substr(0, whole.find_first_of(",\n")));
}

}  // namespace mhmoe::comm
