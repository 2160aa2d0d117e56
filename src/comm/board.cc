#include "comm/board.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <utility>

#include "core/error.h"

namespace mhmoe::comm {
namespace {

static_assert(std::atomic<uint64_t>::is_always_lock_free, "locks do not work between processes");

constexpr size_t kHeader = 64;  // the first reporter, on a cache line of its own

size_t bytes_of(int ranks) {
  return kHeader + sizeof(RankBoard) * static_cast<size_t>(ranks);
}

[[noreturn]] void fail_memory(const char* what, const std::string& name, int error) {
  fail(ExitCode::kMemory,
       "cannot {} the shared memory {} that ranks of a machine watch each other by: {}; look at "
       "df /dev/shm and ulimit -n",
       what, name, std::strerror(error));
}

std::string random_name() {
  std::random_device random;
  return fmt::format("/mhmoe-{:08x}{:08x}", random(), random());
}

template <size_t N>
std::string_view text_of(const std::array<char, N>& text) {
  return {text.data(), strnlen(text.data(), N)};
}

}  // namespace

std::string Operation::name() const {
  return fmt::format("{} #{}{}{}{}", text_of(kind), number, purpose[0] == 0 ? "" : " (", text_of(purpose),
                     purpose[0] == 0 ? "" : ")");
}

std::string Operation::describe() const {
  const std::string size = bytes < 0 ? "" : fmt::format(" of {} bytes", bytes);
  return fmt::format("{}{} in step {}, {} ranks from rank {}", name(), size, step, group_size, first_rank);
}

bool Operation::agrees_with(const Operation& other) const {
  return kind == other.kind && purpose == other.purpose && bytes == other.bytes;
}

int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

void PublishedOperation::store(const Operation& operation) {
  const auto words = std::bit_cast<Words>(operation);
  ++version_;
  for (size_t i = 0; i < words.size(); ++i) words_[i] = words[i];
  ++version_;
}

std::optional<Operation> PublishedOperation::load() const {
  const uint64_t before = version_;
  Words words{};
  for (size_t i = 0; i < words.size(); ++i) words[i] = words_[i];
  if (before % 2 != 0 || before == 0 || version_ != before) return {};
  return std::bit_cast<Operation>(words);
}

std::optional<Operation> RankBoard::find(uint64_t group, uint64_t number) const {
  const int64_t count = entered;
  for (int64_t i = count - 1; i >= 0 && i >= count - kOperations; --i) {
    const PublishedOperation& operation = operations[slot_of(i)];
    if (operation.is_before(group, number)) return {};
    if (!operation.is(group, number)) continue;
    const std::optional<Operation> found = operation.load();
    if (found && found->group == group && found->number == number) return found;
  }
  return {};
}

Arrival RankBoard::arrival(uint64_t group, uint64_t number) const {
  const int64_t count = entered;
  for (int64_t i = count - 1; i >= 0 && i >= count - kOperations; --i) {
    const std::optional<Operation> operation = operations[slot_of(i)].load();
    if (!operation) return Arrival::kUnknown;  // a file keeps fewer
    if (operation->group == group) return operation->number >= number ? Arrival::kYes : Arrival::kNo;
  }
  return count <= kOperations ? Arrival::kNo : Arrival::kUnknown;
}

std::optional<Operation> RankBoard::last() const {
  const int64_t count = entered;
  if (count == 0) return {};
  return operations[slot_of(count - 1)].load();
}

Board::Board(std::string name, int file, int ranks) : name_(std::move(name)), bytes_(bytes_of(ranks)) {
  // Memory that is not there would end the process when it is touched.
  const int error = posix_fallocate(file, 0, static_cast<off_t>(bytes_));
  if (error == 0) memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int map_error = errno;
  close(file);
  if (error != 0 || memory_ == MAP_FAILED) {
    shm_unlink(name_.c_str());
    fail_memory("have", name_, error != 0 ? error : map_error);
  }
}

Board Board::create(int ranks) {
  const std::string name = random_name();
  const int file = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) fail_memory("create", name, errno);
  return {name, file, ranks};
}

Board Board::open(const std::string& name, int ranks) {
  const int file = shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) fail_memory("open", name, errno);
  return {name, file, ranks};
}

void Board::unlink() {
  shm_unlink(name_.c_str());
}

Board::Board(Board&& other) noexcept
    : name_(std::move(other.name_)), bytes_(other.bytes_), memory_(std::exchange(other.memory_, nullptr)) {}

Board::~Board() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

RankBoard& Board::of(int local_rank) const {
  return reinterpret_cast<RankBoard*>(static_cast<char*>(memory_) + kHeader)[local_rank];
}

bool Board::claim_report(int local_rank) {
  auto& reporter = *static_cast<std::atomic<int64_t>*>(memory_);
  int64_t nobody = 0;
  return reporter.compare_exchange_strong(nobody, local_rank + 1);
}

}  // namespace mhmoe::comm
