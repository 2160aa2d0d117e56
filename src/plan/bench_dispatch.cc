#include "plan/bench_dispatch.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <utility>

#include "comm/dispatch.h"
#include "core/clock.h"
#include "core/philox.h"
#include "train/evaluation.h"
#include "train/task.h"

namespace mhmoe::plan {
namespace {

using Choices = std::vector<int32_t>;  // the experts of all sub-tokens, one sub-token's k after another's

int64_t sub_tokens(const train::RunConfig& config) {
  return config.train.micro_batch_sequences * config.data.sequence_length * config.model.moe.heads;
}

Choices in_turns(int64_t count, int64_t experts) {
  Choices choices(static_cast<size_t>(count));
  for (size_t i = 0; i < choices.size(); ++i) choices[i] = static_cast<int32_t>(static_cast<int64_t>(i) % experts);
  return choices;
}

// k different experts for each sub-token.
Choices zipf(const train::RunConfig& config, int rank) {
  const nn::MoeConfig& moe = config.model.moe;
  std::vector<double> sums;
  for (int64_t e = 0; e < moe.experts; ++e) {
    sums.push_back((sums.empty() ? 0 : sums.back()) + 1 / static_cast<double>(1 + e));
  }
  const Philox random(config.seed, fmt::format("bench routing {}", rank));
  Choices choices;
  uint64_t drawn = 0;
  for (int64_t row = 0; row < sub_tokens(config); ++row) {
    std::set<int32_t> of_row;
    while (static_cast<int64_t>(of_row.size()) < moe.top_k) {
      const auto at = std::ranges::upper_bound(sums, random.uniform(drawn++) * sums.back());
      of_row.insert(static_cast<int32_t>(std::min<int64_t>(at - sums.begin(), moe.experts - 1)));
    }
    choices.insert(choices.end(), of_row.begin(), of_row.end());
  }
  return choices;
}

class ChoicesObserver final : public TensorObserver {
 public:
  explicit ChoicesObserver(Context& ctx) : ctx_(ctx) { ctx.set_observer(this); }
  ~ChoicesObserver() override { ctx_.set_observer(nullptr); }
  ChoicesObserver(const ChoicesObserver&) = delete;
  ChoicesObserver& operator=(const ChoicesObserver&) = delete;
  void record(const std::string& name, const Tensor& tensor) override {
    if (!name.ends_with(".moe.expert_index")) return;
    choices.resize(static_cast<size_t>(tensor.count()));
    ctx_.download(choices.data(), tensor);
  }

  Choices choices;

 private:
  Context& ctx_;
};

// Of the first MoE layer on this rank's first micro-batch. What comes behind its router does not matter, so the model
// ends there, and experts are small.
Choices natural(Context& ctx, const train::RunConfig& config, DType compute, int rank) {
  train::RunConfig first = config;
  first.model.layers = config.model.moe.every_n_layers;
  first.model.moe.expert_hidden_size = 1;
  const int64_t sequences = config.train.micro_batch_sequences;
  const ArenaScope scope(ctx.state());
  train::CausalLm task(first.model, false);
  task.parameters().allocate(ctx, compute, false);
  task.parameters().initialize(ctx, config.seed);
  ChoicesObserver observer(ctx);
  train::score_batch(ctx, task, first, synthetic_batch(config, sequences, rank * sequences), std::nullopt, nullptr);
  return std::move(observer.choices);
}

class Bench {
 public:
  Bench(Context& ctx, const comm::ParallelGroups& groups, const train::RunConfig& config, DType compute,
        const BenchOptions& options)
      : ctx_(ctx),
        job_(*groups.job),
        group_(*groups.expert),
        options_(options),
        experts_(config.model.moe.experts),
        local_(experts_ / group_.size()),
        width_(config.model.sub_token_size()),
        dtype_(compute) {}

  // capacity 0: dropless.
  DispatchRow measure(std::string_view routing, const Choices& choices, int64_t capacity, int64_t chunks) {
    dropless_ = capacity == 0;
    std::vector<int32_t> chosen(static_cast<size_t>(experts_));
    for (const int32_t expert : choices) ++chosen[static_cast<size_t>(expert)];
    std::array<int64_t, 2> dropped = {0, static_cast<int64_t>(choices.size())};
    for (const int32_t count : chosen) dropped[0] += dropless_ ? 0 : std::max<int64_t>(0, count - capacity);
    job_.sum(dropped);

    const CommunicationScope scope(ctx_);
    prepare(chosen, capacity);
    const std::vector<float> sent = values(places_.home, group_.rank(), true);
    put(home_, sent);
    std::vector<double> seconds;
    for (int64_t i = 0; i < options_.warmup + options_.steps; ++i) {
      const double one = time_round_trip(chunks);
      if (i >= options_.warmup) seconds.push_back(one);
    }
    std::array<int64_t, 1> wrong = {differences(away_, values(places_.away, group_.rank(), false)) +
                                    differences(back_, sent)};
    job_.sum(wrong);
    const int64_t row_bytes = width_ * static_cast<int64_t>(size_of(dtype_));
    std::array<int64_t, 4> most = {places_.home_rows(), places_.away_rows(), rows_of_others(places_.home),
                                   rows_of_others(places_.away)};
    job_.maximum(most);
    return {.routing = routing,
            .dropless = dropless_,
            .chunks = chunks,
            .rows = most[0],
            .busiest_rows = most[1],
            .sent_bytes = most[2] * row_bytes,
            .received_bytes = most[3] * row_bytes,
            .row_bytes = row_bytes,
            .dropped_fraction = static_cast<double>(dropped[0]) / static_cast<double>(dropped[1]),
            .seconds = median(seconds),
            .wrong = wrong[0]};
  }

 private:
  Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) {
    return ctx_.step().allocate("bench rows", dtype, dims);
  }

  void prepare(const std::vector<int32_t>& chosen, int64_t capacity) {
    home_counts_ = allocate(DType::kI32, {experts_});
    away_counts_ = allocate(DType::kI32, {experts_});
    ctx_.upload(home_counts_, chosen.data());
    host_home_ = chosen;
    if (!dropless_) places_ = comm::RowPlaces::equal_shares(experts_, local_, capacity);
    exchange_counts();
    home_ = allocate(dtype_, {places_.home_rows(), width_});
    away_ = allocate(dtype_, {places_.away_rows(), width_});
    back_ = allocate(dtype_, {places_.home_rows(), width_});
  }

  // Without a capacity the host must know where rows go before they can.
  void exchange_counts() {
    const comm::RowPlaces one_each = comm::RowPlaces::equal_shares(experts_, local_, 1);
    comm::Dispatch counts(ctx_, group_, one_each, "bench", false);
    counts.wait(counts.to_experts(away_counts_, home_counts_, one_each.all(), "counts"));
    if (!dropless_) return;
    std::vector<int32_t> away(static_cast<size_t>(experts_));
    ctx_.download(away.data(), away_counts_);
    places_ = comm::RowPlaces::of_counts(local_, host_home_, away);
  }

  double time_round_trip(int64_t chunks) {
    ctx_.synchronize();
    std::array<int64_t, 1> nanoseconds{};
    job_.sum(nanoseconds);  // all are here
    const auto begin = std::chrono::steady_clock::now();
    exchange_counts();
    comm::Dispatch rows(ctx_, group_, places_, "bench", false);
    rows.round_trip({.away = away_,
                     .home = home_,
                     .results_away = away_,
                     .results_home = back_,
                     .there = "dispatch",
                     .back = "combine"},
                    chunks, {}, [](comm::ExpertRange /*experts*/) {});
    ctx_.synchronize();
    const auto duration = std::chrono::steady_clock::now() - begin;
    nanoseconds[0] = std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
    job_.maximum(nanoseconds);
    return static_cast<double>(nanoseconds[0]) * 1e-9;
  }

  // What lies behind `places`: rows that tell their sender, their expert and their number among these.
  std::vector<float> values(const std::vector<int64_t>& places, int rank, bool at_home) const {
    std::vector<float> out;
    out.reserve(static_cast<size_t>(places.back() * width_));
    for (int64_t number = 0; number < experts_; ++number) {
      const int64_t sender = at_home ? rank : number / local_;
      const int64_t expert = at_home ? number : rank * local_ + number % local_;
      const int64_t rows = places[static_cast<size_t>(number) + 1] - places[static_cast<size_t>(number)];
      for (int64_t i = 0; i < rows * width_; ++i) {
        // Whole numbers that bf16 holds.
        out.push_back(static_cast<float>((sender * 61 + expert * 17 + i / width_ * 7 + i % width_) % 251));
      }
    }
    return out;
  }

  void put(const Tensor& to, const std::vector<float>& values) {
    if (dtype_ == DType::kF32) return ctx_.upload(to, values.data());
    const std::vector<bfloat16> rounded(values.begin(), values.end());
    ctx_.upload(to, rounded.data());
  }

  int64_t differences(const Tensor& found, const std::vector<float>& expected) {
    return dtype_ == DType::kF32 ? differences_in<float>(found, expected) : differences_in<bfloat16>(found, expected);
  }
  template <class T>
  int64_t differences_in(const Tensor& found, const std::vector<float>& expected) {
    std::vector<T> values(expected.size());
    ctx_.download(values.data(), found);
    int64_t count = 0;
    for (size_t i = 0; i < values.size(); ++i) count += static_cast<float>(values[i]) != expected[i] ? 1 : 0;
    return count;
  }

  int64_t rows_of_others(const std::vector<int64_t>& places) const {
    const auto own = static_cast<size_t>(group_.rank() * local_);
    return places.back() - (places[own + static_cast<size_t>(local_)] - places[own]);
  }

  Context& ctx_;
  Job& job_;
  Communicator& group_;
  const BenchOptions& options_;
  int64_t experts_, local_, width_;
  DType dtype_;
  bool dropless_ = false;
  std::vector<int32_t> host_home_;
  comm::RowPlaces places_;
  Tensor home_counts_, away_counts_, home_, away_, back_;
};

// 1, 2, 4, and what the configuration says; no more than a rank has experts.
std::set<int64_t> chunks_to_try(const train::RunConfig& config, int64_t local_experts) {
  std::set<int64_t> out;
  for (const int64_t chunks : {int64_t{1}, int64_t{2}, int64_t{4}, config.parallel.overlap_chunks}) {
    out.insert(std::min(chunks, local_experts));
  }
  return out;
}

double bytes_a_second(int64_t bytes, double seconds) {
  return seconds > 0 ? static_cast<double>(bytes) / seconds : 0;
}

}  // namespace

double DispatchRow::algorithm_bandwidth() const {
  return bytes_a_second(2 * rows * row_bytes, seconds);
}

double DispatchRow::bus_bandwidth() const {
  return bytes_a_second(2 * std::max(sent_bytes, received_bytes), seconds);
}

std::vector<DispatchRow> bench_dispatch(Context& ctx, const comm::ParallelGroups& groups,
                                        const train::RunConfig& config, DType compute, const BenchOptions& options) {
  const nn::MoeConfig& moe = config.model.moe;
  if (config.model.moe_layers() == 0) {
    fail(ExitCode::kConfig, "{}: a dense model has no rows to dispatch; name a configuration with MoE layers",
         config.name);
  }
  const int rank = groups.layout.rank;
  const int64_t assignments = sub_tokens(config) * moe.top_k, local = moe.experts / groups.layout.expert_parallel_size;
  const std::vector<std::pair<std::string_view, Choices>> routings = {{"balanced", in_turns(assignments, moe.experts)},
                                                                      {"natural", natural(ctx, config, compute, rank)},
                                                                      {"zipf", zipf(config, rank)},
                                                                      {"one rank", in_turns(assignments, local)}};
  const int64_t capacity = nn::expert_capacity(moe, moe.capacity_factor.value_or(1.0), sub_tokens(config));
  Bench bench(ctx, groups, config, compute, options);
  std::vector<DispatchRow> rows;
  for (const int64_t room : {capacity, int64_t{0}}) {
    for (const auto& [routing, choices] : routings) {
      for (const int64_t chunks : chunks_to_try(config, local)) {
        rows.push_back(bench.measure(routing, choices, room, chunks));
      }
    }
  }
  return rows;
}

}  // namespace mhmoe::plan
