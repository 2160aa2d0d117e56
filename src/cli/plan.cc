#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "core/log.h"
#include "cpu/backend.h"
#include "plan/cluster_report.h"
#include "plan/report.h"
#include "train/config.h"
#include "train/memory_need.h"
#include "train/trainer.h"

namespace mhmoe::cli {
namespace {

struct PlanOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::string device = "cpu";
  std::string match;
  std::string what = "both";
  int64_t heads = 0;
  int64_t top_k = 0;
  int64_t experts = 0;
  int64_t expert_hidden_size = 0;
  bool ignore_small_terms = false;
  int ranks = 0;  // 0: no cluster
  int gpus_per_node = 8;
  std::string gpu = "h100";
  bool json = false;
};

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
}

void show_plan(const PlanOptions& options, const train::RunConfig& config) {
  open_backend("cpu", cpu::backend());  // throws if this CPU runs none of ours
  const DeviceKind device = options.device == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu;
  const DType compute =
      train::compute_dtype(config.train.precision, device == DeviceKind::kCuda || cpu::backend().prefers_bf16(0));
  const Backend* backend = find_backend(options.device, cpu::backend());
  const ops::KernelTable* kernels = backend == nullptr ? nullptr : &backend->kernels;
  print(plan::describe_model(config));
  print(plan::describe_memory(config, train::measure_memory(config, device, kernels, compute), device, compute));
  if (kernels == nullptr) {
    log::warning("no {} module beside the program: what its kernels take for themselves is not counted",
                 options.device);
  }
}

void show_cluster(const PlanOptions& options, const train::RunConfig& config) {
  const plan::Cluster cluster{
      .ranks = options.ranks, .ranks_per_node = options.gpus_per_node, .gpu = &plan::find_gpu(options.gpu)};
  const plan::ClusterPlan plan =
      plan::plan_cluster(config, cluster, train::compute_dtype(config.train.precision, true));
  if (options.json) return print(json::to_line(plan::cluster_json(plan)) + "\n");
  print(plan::describe_model(config));
  print(plan::cluster_text(plan));
  for (const std::string& warning : plan::cluster_warnings(plan)) log::warning("{}", warning);
}

plan::MatchOptions match_options(const PlanOptions& options) {
  plan::MatchOptions out;
  out.ignore_small_terms = options.ignore_small_terms;
  out.what = options.what == "parameters" ? plan::MatchWhat::kParameters
             : options.what == "flops"    ? plan::MatchWhat::kFlops
                                          : plan::MatchWhat::kBoth;
  if (out.what == plan::MatchWhat::kBoth && (options.experts > 0 || options.expert_hidden_size > 0)) {
    fail(ExitCode::kUsage,
         "plan: --{} holds fixed what matching both looks for; add --match-what parameters, or leave it out",
         options.experts > 0 ? "experts" : "expert-hidden-size");
  }
  if (options.experts > 0) out.experts = options.experts;
  if (options.expert_hidden_size > 0) out.expert_hidden_size = options.expert_hidden_size;
  return out;
}

void run_plan(const PlanOptions& options) {
  if (options.match.empty()) {
    if (options.file.empty()) fail(ExitCode::kUsage, "plan: expected a configuration; see mhmoe plan --help");
    const train::RunConfig config = load_with_vocabulary(options.file, options.overrides);
    return options.ranks > 0 ? show_cluster(options, config) : show_plan(options, config);
  }
  if (options.file.empty() && (options.heads == 0 || options.top_k == 0)) {
    fail(ExitCode::kUsage, "plan --match: expected --heads and --top-k, or a configuration that has them");
  }
  // Without a configuration of its own the model is the baseline's, with other experts.
  const bool own = !options.file.empty();
  const train::RunConfig baseline =
      train::load_config(options.match, own ? std::vector<std::string>{} : options.overrides);
  train::RunConfig config = own ? train::load_config(options.file, options.overrides) : baseline;
  if (!own) config.model = plan::with_heads(baseline.model, options.heads, options.top_k);
  if (options.heads > 0) config.model.moe.heads = options.heads;
  if (options.top_k > 0) config.model.moe.top_k = options.top_k;
  if (config.model.moe.every_n_layers == 0) {
    fail(ExitCode::kConfig, "{}: a dense model has no experts to size; set model.moe.every_n_layers", options.file);
  }
  if (config.model.hidden_size % config.model.moe.heads != 0) {
    fail(ExitCode::kConfig, "{} heads do not divide hidden_size {}", config.model.moe.heads, config.model.hidden_size);
  }
  print(plan::describe_match(baseline.model, config.model, match_options(options),
                             own && options.heads == 0 && options.top_k == 0));
}

// All of these say what --match is to find; without it they would be ignored.
void add_match_options(CLI::App& command, CLI::Option& match, PlanOptions& options) {
  command.add_option("--match-what", options.what, "what is to be equal")
      ->check(CLI::IsMember({"parameters", "flops", "both"}))
      ->capture_default_str()
      ->needs(&match);
  command.add_option("--heads", options.heads, "sub-tokens of a token")->check(CLI::PositiveNumber)->needs(&match);
  command.add_option("--top-k", options.top_k, "experts of a sub-token")->check(CLI::PositiveNumber)->needs(&match);
  auto* experts =
      command.add_option("--experts", options.experts, "held fixed when only parameters or FLOPs are matched")
          ->check(CLI::PositiveNumber)
          ->needs(&match);
  command.add_option("--expert-hidden-size", options.expert_hidden_size, "held fixed when only parameters are matched")
      ->check(CLI::PositiveNumber)
      ->needs(&match)
      ->excludes(experts);
  command
      .add_flag("--ignore-small-terms", options.ignore_small_terms, "leave out the router and biases, as the papers do")
      ->needs(&match);
}

void add_cluster_options(CLI::App& command, CLI::Option& match, CLI::Option& device, PlanOptions& options) {
  auto* ranks = command.add_option("--ranks", options.ranks, "plan a job of so many ranks, one a GPU")
                    ->check(CLI::Range(1, 1 << 20))
                    ->excludes(&match)
                    ->excludes(&device);
  command.add_option("--gpus-per-node", options.gpus_per_node, "GPUs that NVLink joins")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->needs(ranks);
  command.add_option("--gpu", options.gpu, "whose data sheet to plan with")
      ->check(CLI::IsMember({"h100", "h200", "a100"}))
      ->capture_default_str()
      ->needs(ranks);
  command.add_flag("--json", options.json, "print one JSON object")->needs(ranks);
}

}  // namespace

void add_plan_command(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand(
      "plan", "Show a model's parameters, FLOPs and memory, also on many GPUs, or size its experts like another's");
  command->footer(
      "Example: mhmoe plan configs/tiny/mhmoe_8.json\n"
      "         mhmoe plan --match configs/tiny/smoe_8.json --heads 4 --top-k 2\n"
      "         mhmoe plan configs/tiny/mhmoe_8.json --match configs/tiny/smoe_8.json\n"
      "         mhmoe plan configs/paper2/mhmoe_h3.json --ranks 32 --gpus-per-node 8 --gpu h100\n"
      "What many ranks send and how long that takes: docs/scaling.md");
  command->add_option("CONFIG", options->file, "the configuration, a JSON file");
  add_set_option(*command, options->overrides);
  auto* device = command->add_option("--device", options->device, "whose memory is planned")
                     ->check(CLI::IsMember({"cpu", "cuda"}))
                     ->capture_default_str();
  auto* match =
      command
          ->add_option("--match", options->match, "find experts that make the MoE layers as large as this baseline's")
          ->type_name("BASE.json")
          ->excludes(device);
  add_match_options(*command, *match, *options);
  add_cluster_options(*command, *match, *device, *options);
  command->callback([options] { run_plan(*options); });
}

}  // namespace mhmoe::cli
