// Batches read ahead by a thread while the model computes.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "data/loader.h"

namespace mhmoe::data {

// Gives what loader.read() gives, whatever the order of calls; fast where each call continues the one before.
class PrefetchingLoader {
 public:
  // stride: from the first sequence of one read to that of the next; 0: reads follow each other without gaps.
  // The thread starts with the first read. `loader` must outlive this.
  explicit PrefetchingLoader(const BatchLoader& loader, int64_t stride = 0) : loader_(loader), stride_(stride) {}
  ~PrefetchingLoader();
  PrefetchingLoader(const PrefetchingLoader&) = delete;
  PrefetchingLoader& operator=(const PrefetchingLoader&) = delete;

  // As BatchLoader::read, and throws what that threw. For one caller at a time.
  void read(int64_t first, std::span<int32_t> tokens, std::span<int32_t> targets);

 private:
  static constexpr size_t kAhead = 2;  // batches
  struct Batch {
    std::vector<int32_t> tokens, targets;
    std::exception_ptr error;
  };
  void restart(int64_t first, size_t size);
  int64_t stride() const { return stride_ > 0 ? stride_ : static_cast<int64_t>(size_) / loader_.sequence_length(); }
  void work();
  void read_one(int64_t first, size_t size);

  const BatchLoader& loader_;
  const int64_t stride_;
  std::mutex mutex_;
  std::condition_variable ready_, room_;
  // Under the mutex:
  std::array<Batch, kAhead> batches_;  // a ring; those that are read stand from oldest_ on
  size_t oldest_ = 0, count_ = 0;
  int64_t taken_ = 0;        // where the oldest one begins
  int64_t next_ = 0;         // where the batch to be read next begins
  size_t size_ = 0;          // tokens of a batch; 0 before the first read and after an error
  uint64_t generation_ = 0;  // of the position: what was read for another one is thrown away
  bool failed_ = false;      // the last batch holds an error: nothing is read behind it
  bool stop_ = false;
  // The caller's and the thread's own. Batches change places, so that steps reuse their memory.
  Batch given_, reading_;
  std::thread thread_;
};

}  // namespace mhmoe::data
