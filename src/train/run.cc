#include "train/run.h"

#include <chrono>

#include "core/log.h"
#include "data/loader.h"
#include "nn/parameter_file.h"
#include "train/config.h"
#include "train/console.h"
#include "train/dump.h"
#include "train/flops.h"
#include "train/memory_need.h"
#include "train/metrics.h"
#include "train/peak.h"
#include "train/run_folder.h"

namespace mhmoe::train {
namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

std::vector<data::Source> sources_of(const RunConfig& config) {
  std::vector<data::Source> sources;
  for (const SourceConfig& source : config.data.train) sources.push_back({source.path, source.weight});
  return sources;
}

RunConfig with_vocab_size(RunConfig config, const data::Tokenizer& tokenizer) {
  resolve_vocab_size(config, tokenizer);
  return config;
}

// Times a run needs for its averages and its estimate of the end.
struct Timing {
  double training = 0;
  double first_step = 0;
  double validation = 0;
  int64_t validations = 0;
};

class TrainingRun {
 public:
  TrainingRun(const Backend& backend, RunConfig config, const RunOptions& options);
  RunSummary run();

 private:
  std::unique_ptr<Context> create_context(const Backend& backend) const;
  void open_folder();
  void log_start(const Backend& backend);
  void step();
  void dump_begin();
  void dump_end();
  void validate(Record& record);
  void report(int64_t step);
  std::optional<double> eta() const;
  bool is_validation_step(int64_t step) const {
    return step % config_.evaluation.every_steps == 0 || step == config_.train.steps;
  }
  bool is_logged_step(int64_t step) const {
    return step == 1 || step % config_.log.every_steps == 0 || step == config_.train.steps;
  }
  int64_t tokens(int64_t steps) const { return steps * config_.train.batch_tokens; }

  RunOptions options_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  RunConfig config_;
  data::BatchLoader loader_;
  Evaluation evaluation_;
  std::string folder_;
  DType compute_;
  std::unique_ptr<Context> ctx_;
  Trainer trainer_;
  bool has_moe_;
  double flops_per_token_;
  std::optional<StepWindow> window_;
  std::optional<MetricsFiles> files_;
  std::optional<DumpObserver> dump_;
  ProgressBar progress_;
  Timing timing_;
  std::vector<ValidationScore> last_validation_;
};

TrainingRun::TrainingRun(const Backend& backend, RunConfig config, const RunOptions& options)
    : options_(options),
      tokenizer_(data::load_tokenizer(config.data.tokenizer)),
      config_(with_vocab_size(std::move(config), *tokenizer_)),
      loader_(sources_of(config_), *tokenizer_, config_.data.sequence_length, config_.seed),
      evaluation_(config_, *tokenizer_),
      folder_(run_folder(config_)),
      compute_(compute_dtype(config_.train.precision, backend.prefers_bf16())),
      ctx_(create_context(backend)),
      trainer_(*ctx_, config_, compute_),
      has_moe_(trainer_.task().moe_layers() > 0),
      flops_per_token_(training_flops_per_token(config_.model, config_.data.sequence_length)) {
  window_.emplace(flops_per_token_, measure_matmul_peak(backend, compute_));
  open_folder();
  log_start(backend);
}

std::unique_ptr<Context> TrainingRun::create_context(const Backend& backend) const {
  std::unique_ptr<Context> ctx = backend.create_context(0);
  reserve_memory(*ctx, measure_memory(config_, backend.kind, &backend.kernels, compute_));
  return ctx;
}

void TrainingRun::open_folder() {
  create_run_folder(folder_);
  write_text_file(folder_ + "/" + kConfigFileName, resolved_config(config_));
  log::set_file(folder_ + "/" + kLogFileName);
  files_.emplace(folder_, evaluation_.names(), has_moe_);
}

void TrainingRun::log_start(const Backend& backend) {
  constexpr double kMebibyte = 1 << 20;
  log::info("run {}: device {}, {}, {} parameters", folder_, ctx_->name(), compute_ == DType::kBF16 ? "bf16" : "fp32",
            short_count(static_cast<double>(trainer_.task().parameters().parameter_count())));
  log::info("memory: {:.1f} MiB of state (weights, gradients, optimizer), {:.1f} MiB of activations",
            static_cast<double>(ctx_->state().reserved_bytes()) / kMebibyte,
            static_cast<double>(ctx_->step().reserved_bytes()) / kMebibyte);
  const int64_t sequences = loader_.sequence_count();
  log::info("data: {} tokens of training text; {} steps of {} tokens read them {:.2f} times",
            short_count(static_cast<double>(sequences * config_.data.sequence_length)), config_.train.steps,
            config_.train.batch_tokens,
            static_cast<double>(config_.train.steps * trainer_.batch_sequences()) / static_cast<double>(sequences));
  if (std::string_view(backend.name) == "emulated") {
    log::warning("the emulated device shows correctness only; its speed means nothing");
  }
}

RunSummary TrainingRun::run() {
  while (trainer_.steps_done() < config_.train.steps) step();
  progress_.clear();
  const nn::ParameterStore& parameters = trainer_.task().parameters();
  std::vector<float> values(static_cast<size_t>(parameters.master().count()));
  ctx_->download(values.data(), parameters.master());
  write_safetensors(folder_ + "/" + kModelFileName, nn::name_parts(parameters, values.data()),
                    {{"format", "mhmoe"}, {"config", resolved_config(config_)}});
  RunSummary summary{.folder = folder_,
                     .tokens = tokens(config_.train.steps),
                     .seconds = timing_.training,
                     .tokens_per_second = {},
                     .validation = last_validation_};
  const double timed = timing_.training - timing_.first_step;
  if (config_.train.steps > 1) {
    summary.tokens_per_second = static_cast<double>(tokens(config_.train.steps - 1)) / timed;
  }
  return summary;
}

void TrainingRun::step() {
  const Stopwatch watch;
  const int64_t first = trainer_.steps_done() * trainer_.batch_sequences();
  HostBatch batch(trainer_.batch_sequences(), config_.data.sequence_length);
  loader_.read(first, batch.tokens, batch.targets);
  const bool dumped = !options_.dump_folder.empty() && trainer_.steps_done() + 1 == options_.dump_step;
  if (dumped) dump_begin();
  const StepResult result = trainer_.step(batch);
  if (dumped) dump_end();
  const double seconds = watch.seconds();
  timing_.training += seconds;
  if (result.step == 1) timing_.first_step = seconds;
  window_->add(result, config_.train.batch_tokens, seconds);
  report(result.step);
  progress_.draw(result.step, config_.train.steps, eta());
}

void TrainingRun::dump_begin() {
  dump_.emplace(*ctx_);
  ctx_->set_observer(&*dump_);
}

void TrainingRun::dump_end() {
  ctx_->set_observer(nullptr);
  dump_->write(options_.dump_folder, options_.dump_step);
  dump_.reset();
  log::info("step {}: its tensors are in {}", options_.dump_step, options_.dump_folder);
}

void TrainingRun::report(int64_t step) {
  if (!is_logged_step(step) && !is_validation_step(step)) return;
  Record record{.step = step,
                .tokens = tokens(step),
                .flops = flops_per_token_ * static_cast<double>(tokens(step)),
                .seconds = timing_.training,
                .train = {},
                .validation = {}};
  progress_.clear();
  if (is_logged_step(step)) {
    record.train = window_->take();
    log::info("{}", train_line(record, config_.train.steps, has_moe_, eta()));
  }
  if (is_validation_step(step)) validate(record);
  files_->append(record);
}

void TrainingRun::validate(Record& record) {
  const Stopwatch watch;
  record.validation = evaluation_.run(*ctx_, trainer_.task());
  for (const ValidationScore& score : record.validation) {
    log::info("{}", validation_line(record.step, config_.train.steps, score));
  }
  last_validation_ = record.validation;
  timing_.validation += watch.seconds();
  ++timing_.validations;
}

std::optional<double> TrainingRun::eta() const {
  const int64_t done = trainer_.steps_done();
  if (done < 2) return std::nullopt;
  const double a_step = (timing_.training - timing_.first_step) / static_cast<double>(done - 1);
  double seconds = a_step * static_cast<double>(config_.train.steps - done);
  if (timing_.validations > 0) {
    const int64_t every = config_.evaluation.every_steps;
    const int64_t left = (config_.train.steps + every - 1) / every - timing_.validations;
    seconds += timing_.validation / static_cast<double>(timing_.validations) * static_cast<double>(left);
  }
  return seconds;
}

}  // namespace

void resolve_vocab_size(RunConfig& config, const data::Tokenizer& tokenizer) {
  if (config.model.vocab_size == 0) config.model.vocab_size = tokenizer.vocab_size();
  if (config.model.vocab_size < tokenizer.vocab_size()) {
    fail(ExitCode::kConfig, "model.vocab_size is {}, the tokenizer {} has {} ids; use null, or {} or more",
         config.model.vocab_size, config.data.tokenizer, tokenizer.vocab_size(), tokenizer.vocab_size());
  }
}

RunSummary run_training(const Backend& backend, RunConfig config, const RunOptions& options) {
  require_data(config, true);
  if (!options.dump_folder.empty() && options.dump_step > config.train.steps) {
    fail(ExitCode::kUsage, "--dump-step {}: the run has {} steps (train.steps)", options.dump_step, config.train.steps);
  }
  check_run_folder(run_folder(config), options.overwrite);
  return TrainingRun(backend, std::move(config), options).run();
}

}  // namespace mhmoe::train
