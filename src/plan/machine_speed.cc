#include "plan/machine_speed.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <memory>

#include "core/clock.h"
#include "core/parallel_for.h"
#include "core/rank.h"
#include "train/peak.h"

namespace mhmoe::plan {
namespace {

constexpr int64_t kGrain = 1 << 16;

struct Loop {
  const char* name;
  double bytes;  // of a run
  std::function<void()> run;
};

// So many sums at a time that additions wait for memory, not for each other.
float sum_of(const float* x, int64_t count) {
  constexpr int64_t kSums = 64;
  std::array<float, kSums> sums{};
  for (int64_t i = 0; i + kSums <= count; i += kSums) {
#pragma omp simd
    for (int64_t j = 0; j < kSums; ++j) sums[j] += x[i + j];
  }
  float sum = 0;
  for (const float part : sums) sum += part;
  return sum;
}

void scale(float* out, const float* x, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) out[i] = 3 * x[i];
}

void triad(float* out, const float* x, const float* y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] + 3 * y[i];
}

// Each thread's part of an array, written first by the thread, which so gets memory near to it.
std::unique_ptr<float[]> make_array(int64_t count) {
  std::unique_ptr<float[]> array(new float[count]);
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end, int) { std::fill_n(&array[begin], end - begin, 1.0f); });
  return array;
}

std::vector<MemorySpeed> time_loops(const std::vector<Loop>& loops, double seconds) {
  constexpr int kRounds = 2;
  std::vector<std::vector<double>> taken(loops.size());
  const auto begin = Clock::now();
  for (int round = 0; round < kRounds || seconds_since(begin) < seconds; ++round) {
    for (size_t i = 0; i < loops.size(); ++i) {
      const auto start = Clock::now();
      loops[i].run();
      taken[i].push_back(seconds_since(start));
    }
  }
  std::vector<MemorySpeed> speeds;
  for (size_t i = 0; i < loops.size(); ++i) {
    std::ranges::sort(taken[i]);
    speeds.push_back({.loop = loops[i].name,
                      .best = loops[i].bytes / taken[i].front(),
                      .median = loops[i].bytes / taken[i][taken[i].size() / 2],
                      .runs = static_cast<int64_t>(taken[i].size())});
  }
  return speeds;
}

std::vector<MemorySpeed> measure_cpu(int64_t array_bytes, double seconds) {
  const int64_t count = array_bytes / static_cast<int64_t>(sizeof(float));
  const auto a = make_array(count), b = make_array(count), c = make_array(count);
  const auto over = [&](const auto& body) {
    return [count, body] {
      parallel_for(count, kGrain, [&](int64_t begin, int64_t end, int thread) { body(begin, end - begin, thread); });
    };
  };
  std::vector<float> sums(static_cast<size_t>(thread_count()));  // kept, so that reading is not optimised away
  const auto bytes = static_cast<double>(count) * sizeof(float);
  return time_loops(
      {{"read", bytes, over([&](int64_t at, int64_t n, int thread) { sums[thread] = sum_of(&a[at], n); })},
       {"copy", 2 * bytes, over([&](int64_t at, int64_t n, int) { std::memcpy(&b[at], &a[at], n * sizeof(float)); })},
       {"scale", 2 * bytes, over([&](int64_t at, int64_t n, int) { scale(&b[at], &a[at], n); })},
       {"triad", 3 * bytes, over([&](int64_t at, int64_t n, int) { triad(&c[at], &a[at], &b[at], n); })}},
      seconds);
}

std::vector<MemorySpeed> measure_device(const Backend& backend, int64_t array_bytes, double seconds) {
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const int64_t count = array_bytes / static_cast<int64_t>(sizeof(float));
  const Tensor from = ctx->step().allocate("copied", DType::kF32, {count});
  const Tensor to = ctx->step().allocate("copy", DType::kF32, {count});
  ctx->fill_zero(from);
  ctx->synchronize();
  return time_loops({{"copy", 2 * static_cast<double>(from.bytes()),
                      [&] {
                        ctx->copy(to, from);
                        ctx->synchronize();
                      }}},
                    seconds);
}

}  // namespace

std::vector<MemorySpeed> measure_memory(const Backend& backend, int64_t array_bytes, double seconds) {
  return backend.kind == DeviceKind::kCpu ? measure_cpu(array_bytes, seconds)
                                          : measure_device(backend, array_bytes, seconds);
}

Speeds measure_speeds(const Backend& backend, DType compute) {
  constexpr double kSeconds = 0.5;
  Speeds speeds{};
  for (const MemorySpeed& memory : measure_memory(backend, kArrayBytes, kSeconds)) {
    speeds.bytes_per_second = std::max(speeds.bytes_per_second, memory.best);
  }
  speeds.f32_flops = train::measure_matmul_peak(backend, DType::kF32);
  speeds.bf16_flops = compute == DType::kBF16 ? train::measure_matmul_peak(backend, compute) : speeds.f32_flops;
  return speeds;
}

}  // namespace mhmoe::plan
