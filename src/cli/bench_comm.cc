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

namespace mhmoe::cli {
namespace {

struct BenchComm {
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

json::Value object(const std::vector<comm::BenchRow>& rows, const Job& job, const std::string& device) {
  json::Value report = json::Value::object();
  report.add("device", device);
  report.add("ranks", job.size());
  report.add("nodes", job.nodes());
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

void run(const BenchComm& command) {
  Job& job = comm::job();
  const Backend& backend = open_device(command.device);
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
  CLI::App* comm = bench.add_subcommand("comm", "Time the collectives between all ranks of a job, by size");
  comm->footer(
      "The table is that of nccl-tests: algbw is the vector's size by the time, busbw that times 2 (n - 1) / n\n"
      "for all_reduce and (n - 1) / n for the others.\n"
      "Example: mpirun -np 8 mhmoe bench comm --device cuda --max-bytes 1073741824");
  add_device_options(*comm, command->device);
  const auto number = [&](const char* name, auto& value, int64_t least, int64_t most, const char* meaning) {
    comm->add_option(name, value, meaning)->check(CLI::Range(least, most))->capture_default_str();
  };
  constexpr int64_t kMost = int64_t{1} << 40;
  number("--min-bytes", command->options.min_bytes, 4, kMost, "of the first vector; each is 4 times the one before");
  number("--max-bytes", command->options.max_bytes, 4, kMost, "of the last");
  number("--warmup", command->options.warmup, 0, 1000, "calls before the first that is timed");
  number("--calls", command->options.calls, 1, 100000, "that are timed");
  comm->add_flag("--json", command->json, "print one JSON object");
  comm->callback([command] { run(*command); });
}

}  // namespace mhmoe::cli
