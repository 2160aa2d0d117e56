#include "train/console.h"

#include <unistd.h>

#include <cmath>

namespace mhmoe::train {
namespace {

constexpr int kBarWidth = 30;

std::string step_column(int64_t step, int64_t steps) {
  const std::string total = std::to_string(steps);
  return fmt::format("step {:>{}}/{}", step, total.size(), total);
}

}  // namespace

std::string short_count(double value) {
  if (value < 1e3) return fmt::format("{:.0f}", value);
  if (value < 1e6) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.2f}M", value / 1e6);
}

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  const int64_t hours = whole / 3600;
  const int64_t minutes = whole / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

std::string train_line(const Record& record, int64_t steps, bool has_moe, std::optional<double> eta_seconds) {
  const TrainRecord& train = record.train.value();
  std::string line =
      fmt::format("{} | loss {:.4f} ppl {:.2f}", step_column(record.step, steps), train.loss, train.perplexity());
  if (has_moe) line += fmt::format(" | balance {:.2f}", train.moe.balance_loss);
  line += fmt::format(" | lr {:.1e} | grad {:.2f}", train.learning_rate, train.gradient_norm);
  if (has_moe) {
    line += fmt::format(" | load max/mean {:.2f}", train.moe.load_max_over_mean);
    if (train.moe.rank_load_max_over_mean > 0) line += fmt::format(" ranks {:.2f}", train.moe.rank_load_max_over_mean);
    line += fmt::format(" dropped {:.1f}%", 100 * train.moe.dropped_fraction);
    if (train.waiting_share) line += fmt::format(" waiting {:.0f}%", 100 * *train.waiting_share);
  }
  if (train.tokens_per_second) line += fmt::format(" | {:>5} tok/s", short_count(*train.tokens_per_second));
  if (train.mfu) line += fmt::format(" {:.0f}% of peak", 100 * *train.mfu);
  if (eta_seconds) line += fmt::format(" | eta {}", duration(*eta_seconds));
  return line;
}

std::string validation_line(int64_t step, int64_t steps, const ValidationScore& score) {
  return fmt::format("{} | validation {}: loss {:.4f} ppl {:.2f} dropless {:.2f} | {:.4f} bits/byte | {} tokens",
                     step_column(step, steps), score.name, score.loss, score.perplexity(), score.perplexity_dropless(),
                     score.bits_per_byte, score.targets);
}

ProgressBar::ProgressBar() : terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::draw(int64_t step, int64_t steps, std::optional<double> eta_seconds) {
  if (!terminal_) return;
  const auto filled = static_cast<int>(step * kBarWidth / steps);
  const std::string eta = eta_seconds ? fmt::format(" eta {}", duration(*eta_seconds)) : "";
  fmt::print(stderr, "\r\033[K[{:#<{}}{:.<{}}] {}/{}{}", "", filled, "", kBarWidth - filled, step, steps, eta);
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressBar::clear() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace mhmoe::train
