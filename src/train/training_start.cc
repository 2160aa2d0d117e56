// How a run begins, or begins again.
#include <random>

#include "comm/job.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "core/rank.h"
#include "nn/parameter_file.h"
#include "train/config.h"
#include "train/flops.h"
#include "train/memory_need.h"
#include "train/peak.h"
#include "train/product_check.h"
#include "train/rank_agreement.h"
#include "train/training_run.h"

namespace mhmoe::train {
namespace {

std::vector<data::Source> sources_of(const RunConfig& config) {
  std::vector<data::Source> sources;
  for (const SourceConfig& source : config.data.train) sources.push_back({source.path, source.weight});
  return sources;
}

RunConfig with_vocab_size(RunConfig config, const data::Tokenizer& tokenizer) {
  resolve_vocab_size(config, tokenizer);
  return config;
}

std::string new_run_id() {
  std::random_device random;
  return to_hex(uint64_t{random()} << 32 | random());
}

std::vector<Compared> check_shapes(Context& ctx, const ProductShapes& shapes) {
  const Stopwatch watch;
  std::vector<Compared> results = check_products(ctx, shapes);
  log::info("parallel.width_invariant: {} products keep their bits at every layout ({:.1f} s)", results.size(),
            watch.seconds());
  return results;
}

void warn_of_change(const char* what, const std::string& there, const std::string& here) {
  if (there == here) return;
  log::warning("the run was on {} {}, and goes on with {}: it may not come to the same bytes", what, there, here);
}

}  // namespace

TrainingRun::TrainingRun(const Backend& backend, RunConfig config, const RunOptions& options)
    : job_(*options.job),
      leader_(job_.rank() == 0),
      overwrite_(options.start.overwrite),
      has_moe_(config.model.moe_layers() > 0),
      tokenizer_(data::load_tokenizer(config.data.tokenizer)),
      config_(with_vocab_size(std::move(config), *tokenizer_)),
      loader_(sources_of(config_), *tokenizer_, config_.data.sequence_length, config_.seed, config_.data.on_bad_block),
      prefetch_(loader_, config_.train.batch_tokens / config_.data.sequence_length),
      evaluation_(config_, *tokenizer_),
      compute_(compute_dtype(config_.train.precision, backend.prefers_bf16(local_rank()))),
      nodes_(comm::nodes_of_ranks(job_)),
      ctx_(create_context(backend, options)),
      groups_(comm::make_groups(backend, *ctx_, job_, layout(), group_options())),
      trainer_(*ctx_, config_, compute_, groups_, Weights::kNone),
      flops_per_token_(training_flops_per_token(config_.model, config_.data.sequence_length)),
      window_(flops_per_token_, [&backend, this] { return measure_matmul_peak(backend, compute_) * job_.size(); }),
      observation_(*ctx_, config_.model.moe, job_,
                   {.dump_folder = leader_ ? options.dump_folder : "",
                    .dump_step = options.dump_step,
                    .routing_every = has_moe_ ? config_.log.routing_every_steps : 0,
                    .last_step = config_.train.steps}),
      clock_(config_.train.steps, config_.evaluation.every_steps),
      batch_(trainer_.local_sequences(), config_.data.sequence_length),
      hash_(first_hash()),
      run_id_(new_run_id()),
      status_(status_of_this_process()) {
  if (leader_) open_folder(options);
  open_checkpoint();
  if (leader_) log_start();
}

comm::Layout TrainingRun::layout() const {
  const int64_t experts = config_.model.moe_layers() > 0 ? config_.model.moe.experts : 0;
  return comm::make_layout(job_.size(), job_.rank(), experts, config_.parallel.expert_parallel_size);
}

void TrainingRun::compare_ranks() const {
  const Origin from = origin();
  require_agreement(job_, {{"the configuration", resolved_config(config_)},
                           {"the program", program_hash()},
                           {"the training text (data.train)", from.data},
                           {"the tokenizer (data.tokenizer)", from.tokenizer},
                           {"the precision (train.precision)", from.compute}});
}

// The leader has found where the run goes on; the others read the same.
void TrainingRun::open_checkpoint() {
  const std::string found = leader_ && folder_->checkpoint() ? folder_->checkpoint()->path() : "";
  const std::string path = job_.gather(found)[0];
  job_.monitor().set_folder(run_folder(config_));  // the leader holds it now
  if (path.empty()) return trainer_.task().parameters().initialize(*ctx_, config_.seed);
  const Checkpoint checkpoint = leader_ ? *folder_->checkpoint() : Checkpoint(path);
  require_agreement(job_, {{"the checkpoint " + path, branch_name(checkpoint)}});
  restore(checkpoint);
  if (leader_) write_text_file(folder_->file(kConfigFileName), resolved_config(config_));
}

std::unique_ptr<Context> TrainingRun::create_context(const Backend& backend, const RunOptions& options) const {
  compare_ranks();
  MemoryNeed need;
  std::vector<Compared> products;
  comm::agree_after(job_, [&] {
    if (leader_) check_run_folder(config_, options.start);
    const bool check = config_.parallel.width_invariant;
    ProductShapes shapes;
    need = measure_memory(config_, backend.kind, &backend.kernels, compute_, layout(), group_options(),
                          check ? &shapes : nullptr);
    if (check) products = check_shapes(*backend.create_context(local_rank()), shapes);
  });
  require_agreement(job_, products);
  std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  reserve_memory(*ctx, need);
  return ctx;
}

Origin TrainingRun::origin() const {
  return {.data = to_hex(loader_.data_identity()),
          .tokenizer = to_hex(tokenizer_->hash()),
          .compute = std::string(to_string(compute_))};
}

RunHash TrainingRun::first_hash() const {
  const Origin from = origin();
  return RunHash::begin(fmt::format("{}data={}\ntokenizer={}\ncompute={}\n", config_identity(config_), from.data,
                                    from.tokenizer, from.compute));
}

void TrainingRun::check_origin(const std::string& checkpoint, const Origin& there) const {
  const Origin here = origin();
  const auto check = [&](const char* key, const char* what, const std::string& then, const std::string& now) {
    if (then == now) return;
    fail(ExitCode::kConfig,
         "{}: the run was made with another {} ({}) than {} names now ({}); a run keeps to one: give "
         "this one another name (--set name=...)",
         checkpoint, what, then, key, now);
  };
  check("data.train", "training text", there.data, here.data);
  check("data.tokenizer", "tokenizer", there.tokenizer, here.tokenizer);
  check("train.precision", "precision", there.compute, here.compute);
}

void TrainingRun::open_folder(const RunOptions& options) {
  folder_.emplace(config_, options.start);
  // Before anything else: it makes the folder a run's, and one that cannot be written is found now. Where a run goes
  // on, only after all that could still be refused.
  if (!folder_->checkpoint()) write_text_file(folder_->file(kConfigFileName), resolved_config(config_));
  folder_->create_checkpoints_folder();
  log::set_file(folder_->file(kLogFileName));
  saver_.emplace(SaverOptions{.folder = folder_->file(kCheckpointsFolderName),
                              .keep_last = config_.checkpoint.keep_last,
                              .keep_every = config_.checkpoint.keep_every_steps,
                              .max_failed_saves = config_.checkpoint.max_failed_saves,
                              .asynchronous = config_.checkpoint.asynchronous,
                              .in_use = folder_->checkpoint() ? folder_->checkpoint()->path() : ""});
  if (folder_->checkpoint()) return;
  if (folder_->has_run()) log::info("{}: holds a run without a checkpoint: it begins again", folder_->path());
  open_files({});
}

void TrainingRun::open_files(const std::map<std::string, int64_t>& bytes) {
  files_.emplace(folder_->path(),
                 RunFiles::Layout{.validation_sets = evaluation_.names(),
                                  .has_moe = has_moe_,
                                  .routing = has_moe_ && config_.log.routing_every_steps > 0},
                 bytes);
  if (bytes.empty()) files_->note("config", "```json\n" + resolved_config(config_) + "```");
}

void TrainingRun::restore(const Checkpoint& checkpoint) {
  const ResumeState state = read_resume_state(checkpoint.state());
  if (state.trainer.steps_done != checkpoint.step()) {
    fail(ExitCode::kBadData, "{}: is of step {}, and its state of step {}", checkpoint.path(), checkpoint.step(),
         state.trainer.steps_done);
  }
  check_origin(checkpoint.path(), state.origin);
  if (leader_) warn_of_change("device", state.device, ctx_->name());
  if (leader_) warn_of_change("threads", std::to_string(state.threads), std::to_string(thread_count()));
  restore_tensors(checkpoint);
  trainer_.restore(state.trainer);
  window_.restore(state.window);
  clock_.restore(state.training_seconds);
  hash_ = RunHash::of(state.hash);
  refused_steps_ = state.refused_steps;
  validation_ = state.validation;
  if (leader_) continue_records(checkpoint, state);
}

void TrainingRun::continue_records(const Checkpoint& checkpoint, const ResumeState& state) {
  if (folder_->has_run()) {
    run_id_ = checkpoint.run_id();
    parent_ = state.parent;
    open_files(state.file_bytes);
  } else {
    parent_ = branch_name(checkpoint);
    open_files({});
  }
  status_.checkpoint = checkpoint.path();
  log::info("{} {}, after step {} of {}",
            checkpoint.step() < config_.train.steps ? "going on from" : "finished already:", checkpoint.path(),
            checkpoint.step(), config_.train.steps);
}

void TrainingRun::restore_tensors(const Checkpoint& checkpoint) {
  nn::ParameterStore& parameters = trainer_.task().parameters();
  nn::load_parameters(*ctx_, parameters, checkpoint.open("model"));
  const std::vector<nn::OwnedVector> moments = {{"moment1.", trainer_.optimizer().moment1()},
                                                {"moment2.", trainer_.optimizer().moment2()}};
  nn::load_owned_vectors(*ctx_, parameters, moments, checkpoint.open("optimizer"));
}

void TrainingRun::log_start() {
  constexpr double kMebibyte = 1 << 20;
  log::info("run {}: device {}, {} with denormal numbers kept, {} parameters", folder_->path(), ctx_->name(),
            precision_name(compute_), short_count(static_cast<double>(trainer_.task().parameters().parameter_count())));
  if (job_.size() > 1) {
    const comm::Layout& layout = groups_.layout;
    log::info("job: {} ranks on {}, in {} of expert_parallel_size {}", job_.size(),
              job_.nodes() == 1 ? "one machine" : fmt::format("{} machines", job_.nodes()),
              layout.replicas() == 1 ? "one group" : fmt::format("{} groups", layout.replicas()),
              layout.expert_parallel_size);
  }
  log::info("memory: {:.1f} MiB of state (weights, gradients, optimizer), {:.1f} MiB of activations",
            static_cast<double>(ctx_->state().reserved_bytes()) / kMebibyte,
            static_cast<double>(ctx_->step().reserved_bytes()) / kMebibyte);
  if (groups_.hierarchical) {
    log::info("routed rows travel inside the node first, then between nodes (parallel.hierarchical_all_to_all)");
  } else if (nodes_.back() > 0 && config_.parallel.hierarchical_all_to_all == Hierarchical::kOn) {
    log::warning(
        "parallel.hierarchical_all_to_all is on, but expert-parallel groups have not the same number of ranks, and "
        "several, on each of several nodes: routed rows are sent directly");
  }
  const int64_t sequences = loader_.sequence_count();
  log::info("data: {} tokens of training text; {} steps of {} tokens read them {:.2f} times",
            short_count(static_cast<double>(sequences * config_.data.sequence_length)), config_.train.steps,
            config_.train.batch_tokens,
            static_cast<double>(config_.train.steps * trainer_.batch_sequences()) / static_cast<double>(sequences));
}

}  // namespace mhmoe::train
