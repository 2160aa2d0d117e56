#include "train/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/philox.h"

namespace mhmoe::train {
namespace {

int32_t likeliest(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// exp((logit - largest) / temperature): probabilities up to a common factor.
std::vector<double> likelihoods(std::span<const float> logits, double temperature) {
  const double largest = logits[likeliest(logits)];
  std::vector<double> result;
  result.reserve(logits.size());
  for (const float logit : logits) result.push_back(std::exp((static_cast<double>(logit) - largest) / temperature));
  return result;
}

// The ids of the nucleus, likeliest first.
std::vector<int32_t> nucleus(const std::vector<double>& likelihood, double top_p) {
  std::vector<int32_t> ids(likelihood.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (top_p >= 1) return ids;  // all of them, in any order
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return likelihood[a] > likelihood[b]; });
  const double wanted = top_p * std::accumulate(likelihood.begin(), likelihood.end(), 0.0);
  double sum = 0;
  size_t taken = 0;
  while (taken < ids.size() && (taken == 0 || sum < wanted)) sum += likelihood[ids[taken++]];
  ids.resize(taken);
  return ids;
}

}  // namespace

int32_t sample(std::span<const float> logits, const Sampling& sampling, int64_t position) {
  if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
    fail(ExitCode::kNumeric,
         "the model's logits for position {} are not finite: training diverged, or the weights are damaged; take an "
         "earlier checkpoint",
         position);
  }
  if (sampling.temperature == 0) return likeliest(logits);
  const std::vector<double> likelihood = likelihoods(logits, sampling.temperature);
  const std::vector<int32_t> ids = nucleus(likelihood, sampling.top_p);
  double total = 0;
  for (const int32_t id : ids) total += likelihood[id];
  const double point = Philox(sampling.seed, "generate").uniform(static_cast<uint64_t>(position)) * total;
  double sum = 0;
  for (const int32_t id : std::span(ids).first(ids.size() - 1)) {
    sum += likelihood[id];
    if (point < sum) return id;
  }
  return ids.back();
}

Decoder::Decoder(Context& ctx, CausalLm& task, const nn::ModelConfig& config, int64_t capacity)
    : ctx_(ctx),
      task_(task),
      config_(config),
      cache_(ctx, config, task.parameters().compute_dtype(), 1, capacity),
      logits_(ctx.state().allocate("logits", DType::kF32, {1, config.vocab_size})),
      host_logits_(static_cast<size_t>(config.vocab_size)) {}

std::span<const float> Decoder::read(std::span<const int32_t> tokens) {
  {
    const ArenaScope scope(ctx_.step());
    const auto count = static_cast<int64_t>(tokens.size()), layers = task_.moe_layers();
    const Tensor ids = ctx_.step().allocate("tokens", DType::kI32, {1, count});
    ctx_.upload(ids, tokens.data());
    nn::Pass pass{
        .ctx = ctx_,
        .compute = task_.parameters().compute_dtype(),
        .batch = 1,
        .sequence_length = count,
        .capacity_factor = std::nullopt,
        .statistics = {.balance_loss = ctx_.step().allocate("balance losses", DType::kF32, {layers}),
                       .load = ctx_.step().allocate("expert load", DType::kI32, {layers, config_.moe.experts})},
        .cache = &cache_};
    task_.logits(pass, ids, logits_);
    ctx_.download(host_logits_.data(), logits_);
  }
  ctx_.step().merge_blocks();
  return host_logits_;
}

bool generate(Decoder& decoder, std::span<const int32_t> prompt, const Generation& generation,
              const std::function<void(int32_t)>& emit) {
  std::vector<int32_t> sequence(prompt.begin(), prompt.end());
  std::span<const int32_t> unread = sequence;
  decoder.clear();
  for (int64_t i = 0; i < generation.tokens; ++i) {
    const auto logits = decoder.read(unread).first(static_cast<size_t>(generation.vocab));
    const int32_t id = sample(logits, generation.sampling, static_cast<int64_t>(sequence.size()));
    if (id == generation.end) return true;
    emit(id);
    sequence.push_back(id);
    unread = std::span(sequence).last(1);
    if (generation.use_cache) continue;
    decoder.clear();
    unread = sequence;
  }
  return false;
}

}  // namespace mhmoe::train
