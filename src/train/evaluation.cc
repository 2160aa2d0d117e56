#include "train/evaluation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "core/log.h"
#include "train/step_memory.h"

namespace mhmoe::train {

double ValidationScore::perplexity() const {
  return std::exp(loss);
}
double ValidationScore::perplexity_dropless() const {
  return std::exp(loss_dropless);
}

double score_batch(Context& ctx, Task& task, const RunConfig& config, const HostBatch& batch,
                   std::optional<double> capacity_factor, Communicator* experts) {
  ArenaScope scope(ctx.step());
  const DeviceBatch on_device = {
      .tokens = ctx.step().allocate("tokens", DType::kI32, {batch.sequences, batch.length}),
      .targets = ctx.step().allocate("targets", DType::kI32, {batch.sequences, batch.length})};
  upload_sequences(ctx, on_device, batch, 0);
  const Tensor losses = ctx.step().allocate("losses", DType::kF32, {batch.sequences * batch.length});
  const int64_t layers = task.moe_layers();
  nn::Pass pass{
      .ctx = ctx,
      .compute = task.parameters().compute_dtype(),
      .batch = batch.sequences,
      .sequence_length = batch.length,
      .capacity_factor = capacity_factor,
      .statistics = {.balance_loss = ctx.step().allocate("balance losses", DType::kF32, {layers}),
                     .load = ctx.step().allocate("expert load", DType::kI32, {layers, config.model.moe.experts})},
      .experts = experts,
      .overlap_chunks = config.parallel.overlap_chunks,
      .verify_transfers = config.parallel.verify_transfers};
  task.evaluate(pass, on_device, losses);
  std::vector<float> host(static_cast<size_t>(losses.count()));
  ctx.download(host.data(), losses);
  double sum = 0;
  for (const float loss : host) sum += loss;
  return sum;
}

Evaluation::Evaluation(const RunConfig& config, const data::Tokenizer& tokenizer) : config_(config) {
  for (const ValidationConfig& set : config.data.validation) {
    sets_.push_back(std::make_unique<data::ValidationSet>(set.path, tokenizer, config.data.sequence_length,
                                                          config.evaluation.tokens));
    const data::ValidationSet& opened = *sets_.back();
    if (opened.targets() < config.evaluation.tokens) {
      log::info("validation set {}: all of its {} tokens are scored, fewer than evaluation.tokens {}", set.name,
                opened.targets(), config.evaluation.tokens);
    }
  }
}

// The sum of a micro-batch's cross-entropies.
double Evaluation::score(const Scoring& with, const data::ValidationSet& set, std::optional<double> capacity_factor,
                         int64_t micro_batch) const {
  const int64_t first = micro_batch * config_.train.micro_batch_sequences;
  const int64_t count = std::min(config_.train.micro_batch_sequences, set.sequences() - first);
  HostBatch batch(count, config_.data.sequence_length);
  set.read(first, batch.tokens, batch.targets);
  const double sum = score_batch(with.ctx, with.task, config_, batch, capacity_factor, with.groups.expert.get());
  with.scored(count);
  return sum;
}

// Ranks that share experts compute together, so all have micro-batches of one size at a time. What is left when ranks
// have had the same number of whole ones is computed by all of them: the last ones, then one that is not whole.
double Evaluation::mean_loss(const Scoring& with, const data::ValidationSet& set,
                             std::optional<double> capacity_factor) const {
  const int64_t size = config_.train.micro_batch_sequences, ranks = with.groups.layout.world;
  const int64_t whole = set.sequences() / size, all = (set.sequences() + size - 1) / size;
  std::vector<int64_t> sums(static_cast<size_t>(all));  // the bits of doubles; 0 where another rank scores
  const auto keep = [&](int64_t micro_batch, double sum) {
    sums[static_cast<size_t>(micro_batch)] = std::bit_cast<int64_t>(sum);
  };
  for (int64_t first = 0; first < whole; first += ranks) {
    const int64_t own = first + with.groups.layout.rank;
    const double sum = score(with, set, capacity_factor, std::min(own, whole - 1));
    if (own < whole) keep(own, sum);
  }
  if (all > whole) {
    const double sum = score(with, set, capacity_factor, whole);
    if (with.groups.layout.rank == 0) keep(whole, sum);
  }
  with.groups.job->sum(sums);
  with.ctx.step().check_empty();
  with.ctx.step().merge_blocks();
  double total = 0;
  for (const int64_t sum : sums) total += std::bit_cast<double>(sum);
  return total / static_cast<double>(set.targets());
}

std::vector<ValidationScore> Evaluation::run(Context& ctx, Task& task, const Progress& progress) const {
  return run(ctx, task, comm::make_single_groups(ctx), progress);
}

std::vector<ValidationScore> Evaluation::run(Context& ctx, Task& task, const comm::ParallelGroups& groups,
                                             const Progress& progress) const {
  std::vector<ValidationScore> scores;
  const std::optional<double> capacity = config_.model.moe.capacity_factor;
  const bool drops = capacity.has_value() && task.moe_layers() > 0;
  int64_t done = 0, total = 0;
  for (const auto& set : sets_) total += set->sequences() * (drops ? 2 : 1);
  const Scoring with{ctx, task, groups, [&](int64_t sequences) {
                       done = std::min(total, done + sequences * groups.layout.world);
                       if (progress) progress(done, total);
                     }};
  for (size_t i = 0; i < sets_.size(); ++i) {
    const data::ValidationSet& set = *sets_[i];
    ValidationScore score{.name = config_.data.validation[i].name, .targets = set.targets()};
    score.loss = mean_loss(with, set, capacity);
    score.loss_dropless = drops ? mean_loss(with, set, std::nullopt) : score.loss;
    const double bits = score.loss * static_cast<double>(set.targets()) / std::numbers::ln2;
    score.bits_per_byte = set.utf8_bytes() > 0 ? bits / static_cast<double>(set.utf8_bytes()) : 0;
    scores.push_back(score);
  }
  return scores;
}

std::vector<std::string> Evaluation::names() const {
  std::vector<std::string> names;
  for (const ValidationConfig& set : config_.data.validation) names.push_back(set.name);
  return names;
}

}  // namespace mhmoe::train
