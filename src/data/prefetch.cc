#include "data/prefetch.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace mhmoe::data {

PrefetchingLoader::~PrefetchingLoader() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  room_.notify_one();
  thread_.join();
}

void PrefetchingLoader::read(int64_t first, std::span<int32_t> tokens, std::span<int32_t> targets) {
  MHMOE_CHECK(!tokens.empty() && tokens.size() == targets.size(), "batch of {} tokens and {} targets", tokens.size(),
              targets.size());
  std::unique_lock lock(mutex_);
  if (first != taken_ || tokens.size() != size_) restart(first, tokens.size());
  ready_.wait(lock, [&] { return count_ > 0; });
  std::swap(given_, batches_[oldest_]);
  oldest_ = (oldest_ + 1) % kAhead;
  --count_;
  taken_ += stride();
  if (given_.error) {
    size_ = 0;  // so that the next read tries anew
    std::rethrow_exception(std::exchange(given_.error, nullptr));
  }
  lock.unlock();
  room_.notify_one();
  std::ranges::copy(given_.tokens, tokens.begin());
  std::ranges::copy(given_.targets, targets.begin());
}

void PrefetchingLoader::restart(int64_t first, size_t size) {
  ++generation_;
  count_ = 0;
  taken_ = next_ = first;
  size_ = size;
  failed_ = false;
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  room_.notify_one();
}

void PrefetchingLoader::read_one(int64_t first, size_t size) {
  reading_.error = nullptr;
  try {
    reading_.tokens.resize(size);
    reading_.targets.resize(size);
    loader_.read(first, reading_.tokens, reading_.targets);
  } catch (...) {
    reading_.error = std::current_exception();
  }
}

void PrefetchingLoader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [&] { return stop_ || (size_ > 0 && !failed_ && count_ < kAhead); });
    if (stop_) return;
    const uint64_t generation = generation_;
    const int64_t first = next_;
    const size_t size = size_;
    next_ += stride();
    lock.unlock();
    read_one(first, size);
    lock.lock();
    if (generation != generation_) continue;
    failed_ = reading_.error != nullptr;
    std::swap(reading_, batches_[(oldest_ + count_) % kAhead]);
    ++count_;
    ready_.notify_one();
  }
}

}  // namespace mhmoe::data
