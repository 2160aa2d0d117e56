#include "data/prefetch.h"

#include <algorithm>

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
  ready_.wait(lock, [&] { return !batches_.empty(); });
  const Batch batch = std::move(batches_.front());
  batches_.pop_front();
  taken_ += stride();
  if (batch.error) {
    size_ = 0;  // so that the next read tries anew
    std::rethrow_exception(batch.error);
  }
  lock.unlock();
  room_.notify_one();
  std::copy(batch.tokens.begin(), batch.tokens.end(), tokens.begin());
  std::copy(batch.targets.begin(), batch.targets.end(), targets.begin());
}

void PrefetchingLoader::restart(int64_t first, size_t size) {
  ++generation_;
  batches_.clear();
  taken_ = next_ = first;
  size_ = size;
  failed_ = false;
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  room_.notify_one();
}

void PrefetchingLoader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [&] { return stop_ || (size_ > 0 && !failed_ && batches_.size() < kAhead); });
    if (stop_) return;
    const uint64_t generation = generation_;
    const int64_t first = next_;
    Batch batch{.tokens = std::vector<int32_t>(size_), .targets = std::vector<int32_t>(size_), .error = {}};
    next_ += stride();
    lock.unlock();
    try {
      loader_.read(first, batch.tokens, batch.targets);
    } catch (...) {
      batch.error = std::current_exception();
    }
    lock.lock();
    if (generation != generation_) continue;
    failed_ = batch.error != nullptr;
    batches_.push_back(std::move(batch));
    ready_.notify_one();
  }
}

}  // namespace mhmoe::data
