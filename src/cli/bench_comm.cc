#include "cli/bench_comm.h"

#include <memory>

#include "cli/common_options.h"
#include "cli/output.h"
#include "comm/bench.h"
#include "comm/groups.h"
#include "comm/job.h"
#include "core/json.h"
#include "core/log.h"
#include "core/rank.h"
#include "plan/bench_dispatch.h"
#include "train/group_options.h"
#include "train/trainer.h"

namespace mhmoe::cli {
namespace {

struct BenchComm {
  std::string file;  // empty: collectives by size
  std::vector<std::string> overrides;
  DeviceOptions device;
  comm::BenchOptions options;
  bool json = false;
};

// As nccl-tests print it, so that the same scripts read both.
std::string table(const std::vector<comm::BenchRow>& rows) {
  std::string text;
  std::string_view collective;
  for (const comm::BenchRow& row : rows) {
    if (row.collective != collective) {
      collective = row.collective;
      text += fmt::format("# {}\n#{:>11}  {:>12}  {:>8}  {:>6}  {:>6}  {:>9}  {:>7}  {:>7}  {:>6}\n", collective,
                          "size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong");
      text += fmt::format("#{:>11}  {:>12}  {:>8}  {:>6}  {:>6}  {:>9}  {:>7}  {:>7}\n", "(B)", "(elements)", "", "",
                          "", "(us)", "(GB/s)", "(GB/s)");
    }
    const bool sums = collective == "all_reduce" || collective == "reduce_scatter";
    text += fmt::format("{:>12}  {:>12}  {:>8}  {:>6}  {:>6}  {:>9.2f}  {:>7.2f}  {:>7.2f}  {:>6}\n", row.bytes,
                        row.count, "float", sums ? "sum" : "none", -1, row.seconds * 1e6,
                        row.algorithm_bandwidth() * 1e-9, row.bus_bandwidth() * 1e-9, row.wrong);
  }
  return text;
}

json::Value heading(const Job& job, const std::string& device) {
  json::Value report = json::Value::object();
  report.add("device", device);
  report.add("ranks", job.size());
  report.add("nodes", job.nodes());
  return report;
}

json::Value object(const std::vector<comm::BenchRow>& rows, const Job& job, const std::string& device) {
  json::Value report = heading(job, device);
  json::Value& collectives = report.add("collectives", json::Value::array());
  for (const comm::BenchRow& row : rows) {
    json::Value& entry = collectives.add(json::Value::object());
    entry.add("collective", row.collective);
    entry.add("bytes", row.bytes);
    entry.add("count", row.count);
    entry.add("type", "f32");
    entry.add("seconds", row.seconds);
    entry.add("algorithm_bytes_per_second", row.algorithm_bandwidth());
    entry.add("bus_bytes_per_second", row.bus_bandwidth());
    entry.add("wrong", row.wrong);
  }
  return report;
}

const char* width_text(DType dtype) {
  return dtype == DType::kBF16 ? "bf16" : "f32";
}

std::string dispatch_table(const std::vector<plan::DispatchRow>& rows) {
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    const plan::DispatchRow& row = rows[i];
    if (i == 0 || row.dropless != rows[i - 1].dropless) {
      text += fmt::format("# {}\n#{:>11}  {:>6}  {:>9}  {:>9}  {:>12}  {:>12}  {:>7}  {:>9}  {:>7}  {:>7}  {:>6}\n",
                          row.dropless ? "dropless" : "fixed capacity", "routing", "chunks", "rows", "busiest", "sent",
                          "received", "dropped", "time", "algbw", "busbw", "#wrong");
      text += fmt::format("#{:>11}  {:>6}  {:>9}  {:>9}  {:>12}  {:>12}  {:>7}  {:>9}  {:>7}  {:>7}\n", "", "",
                          "(a rank)", "(rows)", "(B)", "(B)", "(%)", "(us)", "(GB/s)", "(GB/s)");
    }
    text += fmt::format("{:>12}  {:>6}  {:>9}  {:>9}  {:>12}  {:>12}  {:>7.2f}  {:>9.2f}  {:>7.2f}  {:>7.2f}  {:>6}\n",
                        row.routing, row.chunks, row.rows, row.busiest_rows, row.sent_bytes, row.received_bytes,
                        100 * row.dropped_fraction, row.seconds * 1e6, row.algorithm_bandwidth() * 1e-9,
                        row.bus_bandwidth() * 1e-9, row.wrong);
  }
  return text;
}

json::Value dispatch_object(const std::vector<plan::DispatchRow>& rows) {
  json::Value list = json::Value::array();
  for (const plan::DispatchRow& row : rows) {
    json::Value& entry = list.add(json::Value::object());
    entry.add("routing", row.routing);
    entry.add("capacity", row.dropless ? "dropless" : "fixed");
    entry.add("overlap_chunks", row.chunks);
    entry.add("rows", row.rows);
    entry.add("busiest_rows", row.busiest_rows);
    entry.add("sent_bytes", row.sent_bytes);
    entry.add("received_bytes", row.received_bytes);
    entry.add("dropped_fraction", row.dropped_fraction);
    entry.add("seconds", row.seconds);
    entry.add("algorithm_bytes_per_second", row.algorithm_bandwidth());
    entry.add("bus_bytes_per_second", row.bus_bandwidth());
    entry.add("wrong", row.wrong);
  }
  return list;
}

// What a configuration's MoE layer sends, by the ranks of a training run.
void run_dispatch(const BenchComm& command) {
  Job& job = comm::job();
  const train::RunConfig config = load_for_job(job, command.file, command.overrides);
  const Backend& backend = open_to_measure(command.device);
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const DType compute = train::compute_dtype(config.train.precision, backend.prefers_bf16(local_rank()));
  const int64_t experts = config.model.moe_layers() > 0 ? config.model.moe.experts : 0;
  const comm::Layout layout = comm::make_layout(job.size(), job.rank(), experts, config.parallel.expert_parallel_size);
  const comm::ParallelGroups groups = comm::make_groups(
      backend, *ctx, job, layout, train::group_options(config, compute, layout, comm::nodes_of_ranks(job)));
  const std::vector<plan::DispatchRow> rows = plan::bench_dispatch(
      *ctx, groups, config, compute, {.warmup = command.options.warmup, .steps = command.options.calls});
  if (job.rank() != 0) return;
  if (command.json) {
    json::Value report = heading(job, ctx->name());
    report.add("name", config.name);
    report.add("expert_parallel_size", layout.expert_parallel_size);
    report.add("hierarchical", groups.hierarchical);
    report.add("row_bytes", rows[0].row_bytes);
    report.add("dispatch", dispatch_object(rows));
    return write_output(json::to_line(report) + "\n");
  }
  write_output(
      fmt::format("# ranks {}, nodes {}, {}; rows of {} B ({} {}) of an MoE layer of {}: {} experts over {} ranks{}\n"
                  "# sent, received: of the dispatch, by the rank with most; the combine sends them back; time: both, "
                  "with counts\n{}",
                  job.size(), job.nodes(), ctx->name(), rows[0].row_bytes, config.model.sub_token_size(),
                  width_text(compute), config.name, experts, layout.expert_parallel_size,
                  groups.hierarchical ? ", inside nodes first" : "", dispatch_table(rows)));
}

void run(const BenchComm& command) {
  if (!command.file.empty()) return run_dispatch(command);
  if (command.options.min_bytes > command.options.max_bytes) {
    fail(ExitCode::kUsage, "--min-bytes {} is above --max-bytes {}: no vector would be sent", command.options.min_bytes,
         command.options.max_bytes);
  }
  Job& job = comm::job();
  const Backend& backend = open_to_measure(command.device);
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const comm::ParallelGroups groups =
      comm::make_groups(backend, *ctx, job, comm::make_layout(job.size(), job.rank(), 0, 0));
  const std::vector<comm::BenchRow> rows = comm::bench_collectives(*ctx, job, *groups.world, command.options);
  if (job.rank() != 0) return;
  if (command.json) return write_output(json::to_line(object(rows, job, ctx->name())) + "\n");
  write_output(fmt::format("# ranks {}, nodes {}, {}; busbw: what each rank's link carries\n{}", job.size(),
                           job.nodes(), ctx->name(), table(rows)));
}

}  // namespace

void add_bench_comm_command(CLI::App& bench) {
  auto command = std::make_shared<BenchComm>();
  CLI::App* comm = bench.add_subcommand(
      "comm", "Time the collectives between all ranks of a job, by size, or how an MoE layer's rows travel");
  comm->footer(
      "The table is that of nccl-tests: algbw is the vector's size by the time, busbw that times 2 (n - 1) / n\n"
      "for all_reduce and (n - 1) / n for the others.\n"
      "With CONFIG: dispatch and combine of one of its MoE layers, a micro-batch on every rank, with fixed capacity\n"
      "and dropless, with experts chosen evenly (balanced), by the untrained router (natural), by Zipf's law (zipf),\n"
      "and all on one rank. algbw: all rows, out and back, by the time; busbw: those that the busiest rank's link "
      "carries.\n"
      "Example: mpirun -np 8 mhmoe bench comm --device cuda --max-bytes 1073741824\n"
      "         mpirun -np 8 mhmoe bench comm configs/paper2/mhmoe_h3.json --device cuda");
  auto* config = comm->add_option("CONFIG", command->file, "a configuration with MoE layers; needs no data");
  add_set_option(*comm, command->overrides)->needs(config);
  add_device_options(*comm, command->device);
  constexpr int64_t kMost = int64_t{1} << 40;
  add_number(*comm, "--min-bytes", command->options.min_bytes, 4, kMost,
             "bytes of the first vector; each is 4 times the one before")
      ->excludes(config);
  add_number(*comm, "--max-bytes", command->options.max_bytes, 4, kMost, "bytes of the last vector")->excludes(config);
  add_number(*comm, "--warmup", command->options.warmup, 0, 1000, "calls before the first that is timed");
  add_number(*comm, "--calls", command->options.calls, 1, 100000, "timed calls");
  comm->add_flag("--json", command->json, "print one JSON object");
  comm->callback([command] { run(*command); });
}

}  // namespace mhmoe::cli
