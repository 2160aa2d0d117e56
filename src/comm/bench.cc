#include "comm/bench.h"

#include <array>
#include <chrono>
#include <cstring>

namespace mhmoe::comm {
namespace {

enum class Collective : uint8_t { kAllReduce, kReduceScatter, kAllGather, kAllToAll };

constexpr std::array<std::string_view, 4> kNames = {"all_reduce", "reduce_scatter", "all_gather", "all_to_all"};

// Small whole numbers, so that sums are exact in every order.
float value_of(int rank, int64_t i) {
  return static_cast<float>((rank * 5 + i) % 11);
}

// The tensors of one call, and what it must give.
class Call {
 public:
  Call(Context& ctx, Communicator& world, Collective collective, int64_t elements)
      : ctx_(ctx), world_(world), collective_(collective), elements_(elements), mark_(ctx.state().mark()) {
    const int64_t share = elements / world.size();
    const auto make = [&](const char* name, int64_t count) { return ctx.state().allocate(name, DType::kF32, {count}); };
    in_ = make("input", collective == Collective::kAllGather ? share : elements);
    out_ = collective == Collective::kAllReduce
               ? in_
               : make("output", collective == Collective::kReduceScatter ? share : elements);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() { ctx_.state().release(mark_); }

  // What a rank names in its call.
  int64_t count() const { return collective_ == Collective::kAllReduce ? elements_ : elements_ / world_.size(); }

  void clear() { ctx_.fill_zero(in_); }
  void run() { world_.wait(start()); }

  int64_t count_wrong() {
    std::vector<float> values(static_cast<size_t>(in_.count()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = value_of(me(), static_cast<int64_t>(i));
    ctx_.upload(in_, values.data());
    run();
    values.resize(static_cast<size_t>(out_.count()));
    ctx_.download(values.data(), out_);
    int64_t wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) wrong += values[i] != expected(static_cast<int64_t>(i)) ? 1 : 0;
    return wrong;
  }

 private:
  int me() const { return world_.rank(); }

  Transfer start() {
    switch (collective_) {
      case Collective::kAllReduce:
        return world_.all_reduce_sum(in_, "bench");
      case Collective::kReduceScatter:
        return world_.reduce_scatter_sum(out_, in_, "bench");
      case Collective::kAllGather:
        return world_.all_gather(out_, in_, "bench");
      case Collective::kAllToAll:
        return world_.all_to_all(out_, in_, "bench");
    }
    return {};
  }

  float expected(int64_t i) const {
    const int64_t share = elements_ / world_.size();
    const int from = static_cast<int>(i / share);
    switch (collective_) {
      case Collective::kAllReduce:
        return sum_of(i);
      case Collective::kReduceScatter:
        return sum_of(me() * share + i);
      case Collective::kAllGather:
        return value_of(from, i % share);
      case Collective::kAllToAll:
        return value_of(from, me() * share + i % share);
    }
    return 0;
  }
  float sum_of(int64_t i) const {
    float sum = 0;
    for (int rank = 0; rank < world_.size(); ++rank) sum += value_of(rank, i);
    return sum;
  }

  Context& ctx_;
  Communicator& world_;
  Collective collective_;
  int64_t elements_;
  Arena::Mark mark_;
  Tensor in_, out_;
};

// Nanoseconds of `calls` calls one after another, begun together.
int64_t time_calls(Context& ctx, Job& job, Call& call, int calls) {
  ctx.synchronize();
  std::array<int64_t, 1> all_are_here{};
  job.sum(all_are_here);
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call.run();
  ctx.synchronize();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin).count();
}

BenchRow measure(Context& ctx, Job& job, Communicator& world, Collective collective, int64_t bytes,
                 const BenchOptions& options) {
  // As many elements as all ranks can share.
  const int64_t share = std::max<int64_t>(1, bytes / static_cast<int64_t>(sizeof(float)) / world.size());
  Call call(ctx, world, collective, share * world.size());
  call.clear();
  time_calls(ctx, job, call, options.warmup);
  std::array<int64_t, 2> sums = {time_calls(ctx, job, call, options.calls), call.count_wrong()};
  job.sum(sums);
  const double others = static_cast<double>(world.size() - 1) / world.size();
  return {.collective = kNames[static_cast<size_t>(collective)],
          .bytes = share * world.size() * static_cast<int64_t>(sizeof(float)),
          .count = call.count(),
          .seconds = static_cast<double>(sums[0]) * 1e-9 / options.calls / world.size(),
          .bus_factor = collective == Collective::kAllReduce ? 2 * others : others,
          .wrong = sums[1]};
}

}  // namespace

std::vector<BenchRow> bench_collectives(Context& ctx, Job& job, Communicator& world, const BenchOptions& options) {
  std::vector<BenchRow> rows;
  for (size_t kind = 0; kind < kNames.size(); ++kind) {
    for (int64_t bytes = options.min_bytes; bytes <= options.max_bytes; bytes *= 4) {
      rows.push_back(measure(ctx, job, world, static_cast<Collective>(kind), bytes, options));
    }
  }
  return rows;
}

}  // namespace mhmoe::comm
