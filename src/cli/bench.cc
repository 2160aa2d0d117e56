#include <algorithm>
#include <memory>

#include "cli/bench_comm.h"
#include "cli/bench_machine.h"
#include "cli/bench_model.h"
#include "cli/bench_use.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "comm/job.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "core/rank.h"
#include "plan/bench_report.h"
#include "plan/machine_speed.h"
#include "plan/train_report.h"
#include "train/peak.h"

namespace mhmoe::cli {
namespace {

struct BenchCommand : BenchModel {
  std::string gpu;  // empty: the device's own
  bool floors = false;
};

const plan::Gpu* gpu_of(const BenchCommand& command, const std::string& device_name) {
  return command.gpu.empty() ? plan::gpu_of_device(device_name) : &plan::find_gpu(command.gpu);
}

void print(const BenchCommand& command, const std::string& text, const json::Value& json) {
  write_output(command.json ? json::to_line(json) + "\n" : text);
}

void show_floors(const BenchCommand& command) {
  const train::RunConfig config = load_with_vocabulary(command.file, command.overrides);
  const DType compute = train::compute_dtype(config.train.precision, true);
  const auto work = plan::work_of_step(config, DeviceKind::kCuda, compute);
  const plan::Gpu& gpu = plan::find_gpu(command.gpu.empty() ? "h100" : command.gpu);
  const plan::OpsReport report = {.config = config, .compute = compute, .work = work, .gpu = &gpu};
  print(command, plan::ops_text(report), plan::ops_json(report));
}

void run_ops(const BenchCommand& command) {
  if (command.floors) return show_floors(command);
  const train::RunConfig config = load_with_vocabulary(command.file, command.overrides);
  const Backend& backend = open_to_measure(command.device);
  const DType compute = train::compute_dtype(config.train.precision, backend.prefers_bf16(local_rank()));
  const auto work = plan::work_of_step(config, backend.kind, compute);
  const std::string name = backend.create_context(local_rank())->name();
  const plan::OpsReport report = {.config = config,
                                  .compute = compute,
                                  .work = work,
                                  .gpu = gpu_of(command, name),
                                  .times = plan::time_ops(backend, config, compute, command.options),
                                  .device = name,
                                  .idle_seconds = plan::idle_seconds(backend)};
  print(command, plan::ops_text(report), plan::ops_json(report));
}

void run_train(const BenchCommand& command) {
  Job& job = comm::job();
  const train::RunConfig config = load_for_job(job, command.file, command.overrides);
  const Backend& backend = open_to_measure(command.device);
  const DType compute = train::compute_dtype(config.train.precision, backend.prefers_bf16(local_rank()));
  // A machine that others share is not equally fast at all times: the better of before and after. Memory's speed only
  // after, with arrays larger than small models: the peak of the process's memory is the steps'.
  const double peak_before = train::measure_matmul_peak(backend, compute);
  const plan::StepTimes times = plan::time_steps(backend, job, config, compute, command.options);
  plan::Speeds measured = plan::measure_speeds(backend, compute);
  double& peak = compute == DType::kBF16 ? measured.bf16_flops : measured.f32_flops;
  peak = std::max(peak, peak_before);
  plan::PartSeconds floors = plan::floors_by_part(config, backend.kind, compute, measured);
  for (const StepPart part : kStepParts) floors[part] /= job.size();  // a rank has its share of micro-batches and state
  if (job.rank() != 0) return;
  const plan::TrainReport report = {.config = config,
                                    .compute = compute,
                                    .threads = thread_count(),
                                    .times = times,
                                    .measured = measured,
                                    .floors = floors,
                                    .gpu = gpu_of(command, times.device)};
  print(command, plan::train_text(report), plan::train_json(report));
}

void add_shared_options(CLI::App& command, BenchCommand& options) {
  add_model_options(command, options,
                    {.warmup = "steps before the first that is timed; with train.cuda_graphs the second one records",
                     .steps = "timed steps"});
  command
      .add_option("--gpu", options.gpu,
                  "the GPU whose data sheet to compare with; by default the device's own, with --floors h100")
      ->check(CLI::IsMember({"h100", "h200", "a100"}));
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* bench =
      app.add_subcommand("bench", "Measure a device: its peaks, a model's ops and whole steps, or the ranks' exchange");
  bench->require_subcommand(1);
  bench->footer(
      "What the figures mean: docs/performance.md. Tokens are drawn evenly from the vocabulary and weights are as\n"
      "initialised, so no data is needed.\n"
      "Example: mhmoe bench train configs/tiny/mhmoe_8.json --set model.vocab_size=8192");

  auto ops_options = std::make_shared<BenchCommand>();
  CLI::App* ops = bench->add_subcommand(
      "ops", "Time every op of a micro-batch and an update by itself; on a GPU beside the least time that it can take");
  ops->footer(
      "Floors: docs/gpu_performance.md\n"
      "Example: mhmoe bench ops configs/paper2/mhmoe_h3.json --floors --gpu h100\n"
      "         mhmoe bench ops configs/paper2/mhmoe_h3.json --device cuda");
  add_shared_options(*ops, *ops_options);
  ops->add_flag("--floors", ops_options->floors, "print the floors alone; needs no device")->excludes("--device");
  ops->callback([ops_options] { run_ops(*ops_options); });

  auto train_options = std::make_shared<BenchCommand>();
  CLI::App* train = bench->add_subcommand(
      "train", "Time whole steps: tokens/s, model FLOP/s, share of the peak; then a step's parts beside their floors");
  train->footer(
      "Under mpirun: all ranks' tokens/s, and what share of a step they wait for routed rows, reductions, weights.\n"
      "Example: mhmoe bench train configs/paper2/mhmoe_h3.json --device cuda\n"
      "         mpirun -np 2 mhmoe bench train configs/bench/mhmoe_h3.json --device cpu --json");
  add_shared_options(*train, *train_options);
  train->callback([train_options] { run_train(*train_options); });

  add_bench_machine_commands(*bench);
  add_bench_use_commands(*bench);
  add_bench_comm_command(*bench);
}

}  // namespace mhmoe::cli
