#include "train/metrics.h"

#include <cerrno>
#include <cmath>

#include "core/file.h"
#include "core/json.h"

namespace mhmoe::train {

double TrainRecord::perplexity() const {
  return std::exp(loss);
}

void StepWindow::add(const StepResult& result, int64_t tokens, double seconds) {
  last_ = result;
  if (!result.refused()) {
    ++averaged_;
    loss_ += result.loss;
    moe_.balance_loss += result.moe.balance_loss;
    moe_.load_max_over_mean += result.moe.load_max_over_mean;
    moe_.dropped_fraction += result.moe.dropped_fraction;
    moe_.expert_activation += result.moe.expert_activation;
  }
  if (result.step > 1) {
    timed_tokens_ += tokens;
    timed_seconds_ += seconds;
  }
}

TrainRecord StepWindow::take() {
  TrainRecord record{.loss = last_.loss,
                     .gradient_norm = last_.gradient_norm,
                     .learning_rate = last_.learning_rate,
                     .moe = last_.moe,
                     .tokens_per_second = {},
                     .mfu = {}};
  if (averaged_ > 0) {
    const auto n = static_cast<double>(averaged_);
    record.loss = loss_ / n;
    record.moe = {.balance_loss = moe_.balance_loss / n,
                  .load_max_over_mean = moe_.load_max_over_mean / n,
                  .dropped_fraction = moe_.dropped_fraction / n,
                  .expert_activation = moe_.expert_activation / n};
  }
  if (timed_seconds_ > 0) {
    record.tokens_per_second = static_cast<double>(timed_tokens_) / timed_seconds_;
    if (peak_) record.mfu = *record.tokens_per_second * flops_per_token_ / *peak_;
    if (record.mfu > 1.0) record.mfu.reset();  // the peak was measured on a busy machine: no share of it means anything
  }
  *this = StepWindow(flops_per_token_, peak_);
  return record;
}

MetricsFiles::TextFile MetricsFiles::open(const std::string& path) {
  TextFile out{.path = path, .file = std::unique_ptr<std::FILE, Close>(std::fopen(path.c_str(), "we"))};
  if (!out.file) fail_errno(path, "create", errno, ExitCode::kCannotCreate);
  return out;
}

void MetricsFiles::write_line(TextFile& file, const std::string& line) {
  const bool written = std::fputs(line.c_str(), file.file.get()) >= 0 && std::fputc('\n', file.file.get()) != EOF &&
                       std::fflush(file.file.get()) == 0;
  if (!written) fail_errno(file.path, "write", errno);
}

MetricsFiles::MetricsFiles(const std::string& folder, const std::vector<std::string>& validation_names, bool has_moe)
    : metrics_(open(folder + "/metrics.jsonl")),
      perplexity_(open(folder + "/perplexity.csv")),
      validation_sets_(validation_names.size()),
      has_moe_(has_moe) {
  std::string header = "step,tokens,flops,seconds,train/perplexity";
  for (const std::string& name : validation_names) {
    header += fmt::format(",validation/{0}/perplexity,validation/{0}/perplexity_dropless", name);
  }
  write_line(perplexity_, header);
}

void MetricsFiles::append(const Record& record) {
  write_line(metrics_, json_line(record));
  write_line(perplexity_, csv_line(record));
}

std::string MetricsFiles::json_line(const Record& record) const {
  json::Value line = json::Value::object();
  line.add("step", record.step);
  line.add("tokens", record.tokens);
  line.add("flops", record.flops);
  line.add("seconds", record.seconds);
  if (record.train) {
    const TrainRecord& train = *record.train;
    line.add("train/loss", train.loss);
    line.add("train/perplexity", train.perplexity());
    line.add("train/grad_norm", train.gradient_norm);
    line.add("train/learning_rate", train.learning_rate);
    if (train.tokens_per_second) line.add("train/tokens_per_second", *train.tokens_per_second);
    if (train.mfu) line.add("train/mfu", *train.mfu);
    if (has_moe_) {
      line.add("train/balance_loss", train.moe.balance_loss);
      line.add("moe/load_max_over_mean", train.moe.load_max_over_mean);
      line.add("moe/dropped_fraction", train.moe.dropped_fraction);
      line.add("moe/expert_activation", train.moe.expert_activation);
    }
  }
  for (const ValidationScore& score : record.validation) {
    const std::string prefix = "validation/" + score.name + "/";
    line.add(prefix + "loss", score.loss);
    line.add(prefix + "perplexity", score.perplexity());
    line.add(prefix + "perplexity_dropless", score.perplexity_dropless());
    line.add(prefix + "bits_per_byte", score.bits_per_byte);
  }
  return json::to_line(line);
}

std::string MetricsFiles::csv_line(const Record& record) const {
  std::string line = fmt::format("{},{},{:.6e},{:.3f},", record.step, record.tokens, record.flops, record.seconds);
  if (record.train) line += fmt::format("{}", record.train->perplexity());
  for (const ValidationScore& score : record.validation) {
    line += fmt::format(",{},{}", score.perplexity(), score.perplexity_dropless());
  }
  if (record.validation.empty()) line += std::string(2 * validation_sets_, ',');
  return line;
}

}  // namespace mhmoe::train
