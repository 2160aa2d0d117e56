// What the ranks of a machine show each other without MPI, so that it can be read when MPI is stuck: shared memory.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mhmoe::comm {

// A collective that a rank entered.
struct Operation {
  uint64_t group = 0;   // names its ranks
  uint64_t number = 0;  // within the group, from 1
  int64_t bytes = -1;   // -1: ranks need not agree
  int64_t step = 0;
  int64_t entered = 0;  // now(), as all times here
  int32_t group_size = 0, first_rank = 0;
  std::array<char, 24> kind{};
  std::array<char, 72> purpose{};

  // "all_to_all #7 (layers.3.moe dispatch)"
  std::string name() const;
  // Also how much, by whom and when.
  std::string describe() const;
  bool agrees_with(const Operation& other) const;
};

// Nanoseconds of a clock that all processes of the machine share.
int64_t now();
constexpr double seconds_of(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) * 1e-9;
}

// One writer; readers in any process see a whole operation or none.
class PublishedOperation {
 public:
  void store(const Operation& operation);
  // None while it is being written.
  std::optional<Operation> load() const;
  bool is(uint64_t group, uint64_t number) const { return words_[0] == group && words_[1] == number; }
  bool is_before(uint64_t group, uint64_t number) const { return words_[0] == group && words_[1] < number; }

 private:
  using Words = std::array<uint64_t, sizeof(Operation) / sizeof(uint64_t)>;
  static_assert(sizeof(Words) == sizeof(Operation));

  std::atomic<uint64_t> version_;  // odd while it is being written
  std::array<std::atomic<uint64_t>, std::tuple_size_v<Words>> words_;
};

enum class Arrival { kYes, kNo, kUnknown };

// One rank's part, written by that rank alone.
struct RankBoard {
  // More than a rank enters between the start of the first bucket of a step and the wait for it.
  static constexpr int64_t kOperations = 512;
  static constexpr int64_t kDeviceWait = -1;

  std::atomic<int64_t> step;
  std::atomic<int64_t> heartbeat;      // when its watchdog was last awake
  std::atomic<int64_t> waiting_since;  // 0: it does not wait
  std::atomic<int64_t> waiting_for;    // which operation, or kDeviceWait
  std::atomic<int64_t> entered;        // operations so far; number i lies at i % kOperations
  std::array<PublishedOperation, kOperations> operations;
  std::array<std::atomic<int64_t>, kOperations> left;  // when; 0: not yet

  static size_t slot_of(int64_t index) { return static_cast<size_t>(index % kOperations); }
  // Whether the slot of an operation that was entered still is its own.
  bool keeps(int64_t index) const { return index >= entered - kOperations; }
  std::optional<Operation> kept(int64_t index) const {
    return keeps(index) ? operations[slot_of(index)].load() : std::nullopt;
  }
  std::optional<Operation> find(uint64_t group, uint64_t number) const;
  // Whether the rank entered it, also where it is kept no more: a group's operations are entered in order.
  Arrival arrival(uint64_t group, uint64_t number) const;
  std::optional<Operation> last() const;
};

// Memory of all ranks of a machine. Zeroed memory is a board on which nothing happened.
class Board {
 public:
  // By one process; the name is a new one. Throws Error(kMemory).
  static Board create(int ranks);
  // By the others, before unlink().
  static Board open(const std::string& name, int ranks);
  // When all have opened it: the memory goes with its last process, whatever ends that.
  void unlink();

  Board(Board&& other) noexcept;
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  Board& operator=(Board&&) = delete;
  ~Board();

  const std::string& name() const { return name_; }
  RankBoard& of(int local_rank) const;
  // True once, for the first of the machine that reports the job's end: a rank, or its watchdog.
  bool claim_report(int local_rank);

 private:
  Board(std::string name, int file, int ranks);

  std::string name_;
  size_t bytes_ = 0;
  void* memory_ = nullptr;
};

}  // namespace mhmoe::comm
