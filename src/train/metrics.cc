#include "train/metrics.h"

#include <cmath>
#include <exception>
#include <utility>

#include "core/log.h"

namespace mhmoe::train {
namespace {

MoeSummary mean(const MoeSummary& sum, double count) {
  return {.balance_loss = sum.balance_loss / count,
          .load_max_over_mean = sum.load_max_over_mean / count,
          .dropped_fraction = sum.dropped_fraction / count,
          .expert_activation = sum.expert_activation / count};
}

void add_to(MoeSummary& sum, const MoeSummary& step) {
  sum.balance_loss += step.balance_loss;
  sum.load_max_over_mean += step.load_max_over_mean;
  sum.dropped_fraction += step.dropped_fraction;
  sum.expert_activation += step.expert_activation;
}

// No run ends for a figure of merit.
std::optional<double> peak_if_any(const std::function<double()>& measure) {
  try {
    return measure();
  } catch (const std::exception& error) {
    log::warning("the peak of matrix products cannot be measured, and no share of it told (train/mfu): {}",
                 error.what());
    return std::nullopt;
  }
}

}  // namespace

double TrainRecord::perplexity() const {
  return std::exp(loss);
}

std::vector<std::pair<std::string, double>> scalars(const Record& record, bool has_moe) {
  std::vector<std::pair<std::string, double>> out;
  if (record.train) {
    const TrainRecord& train = *record.train;
    out.emplace_back("train/loss", train.loss);
    out.emplace_back("train/perplexity", train.perplexity());
    out.emplace_back("train/grad_norm", train.gradient_norm);
    out.emplace_back("train/learning_rate", train.learning_rate);
    out.emplace_back("train/refused_steps", static_cast<double>(record.refused_steps));
    if (train.tokens_per_second) out.emplace_back("train/tokens_per_second", *train.tokens_per_second);
    if (train.mfu) out.emplace_back("train/mfu", *train.mfu);
    if (has_moe) {
      out.emplace_back("train/balance_loss", train.moe.balance_loss);
      out.emplace_back("moe/load_max_over_mean", train.moe.load_max_over_mean);
      out.emplace_back("moe/dropped_fraction", train.moe.dropped_fraction);
      out.emplace_back("moe/expert_activation", train.moe.expert_activation);
      if (train.moe.rank_load_max_over_mean > 0) {
        out.emplace_back("moe/rank_load_max_over_mean", train.moe.rank_load_max_over_mean);
        if (train.waiting_share) out.emplace_back("moe/waiting_share", *train.waiting_share);
      }
    }
  }
  for (const ValidationScore& score : record.validation) {
    const std::string prefix = "validation/" + score.name + "/";
    out.emplace_back(prefix + "loss", score.loss);
    out.emplace_back(prefix + "perplexity", score.perplexity());
    out.emplace_back(prefix + "perplexity_dropless", score.perplexity_dropless());
    out.emplace_back(prefix + "bits_per_byte", score.bits_per_byte);
  }
  return out;
}

void StepWindow::add(const StepResult& result, int64_t tokens, double seconds, bool timed) {
  sums_.last_loss = result.loss;
  sums_.last_gradient_norm = result.gradient_norm;
  sums_.last_learning_rate = result.learning_rate;
  sums_.last_moe = result.moe;
  if (!result.refused()) {
    ++sums_.averaged;
    sums_.loss += result.loss;
    add_to(sums_.moe, result.moe);
  }
  if (timed) {
    sums_.timed_tokens += tokens;
    sums_.timed_seconds += seconds;
    sums_.waiting_seconds += result.waiting_seconds;
  }
}

TrainRecord StepWindow::take() {
  TrainRecord record{.loss = sums_.last_loss,
                     .gradient_norm = sums_.last_gradient_norm,
                     .learning_rate = sums_.last_learning_rate,
                     .moe = sums_.last_moe,
                     .tokens_per_second = {},
                     .waiting_share = {},
                     .mfu = {}};
  if (sums_.averaged > 0) {
    const auto n = static_cast<double>(sums_.averaged);
    record.loss = sums_.loss / n;
    record.moe = mean(sums_.moe, n);
    record.moe.rank_load_max_over_mean = sums_.last_moe.rank_load_max_over_mean;
  }
  if (sums_.timed_seconds > 0) {
    record.tokens_per_second = static_cast<double>(sums_.timed_tokens) / sums_.timed_seconds;
    if (sums_.waiting_seconds > 0) record.waiting_share = sums_.waiting_seconds / sums_.timed_seconds;
    if (measure_peak_) peak_ = peak_if_any(std::exchange(measure_peak_, nullptr));
    if (peak_) record.mfu = *record.tokens_per_second * flops_per_token_ / *peak_;
    if (record.mfu > 1.0) record.mfu.reset();  // the peak was measured on a busy machine: no share of it means anything
  }
  sums_ = {};
  return record;
}

}  // namespace mhmoe::train
