#include "cli/bench_machine.h"

#include <algorithm>
#include <memory>

#include "cli/common_options.h"
#include "cli/output.h"
#include "core/json.h"
#include "core/parallel_for.h"
#include "core/rank.h"
#include "plan/machine_speed.h"
#include "plan/report.h"
#include "train/peak.h"
#include "train/trainer.h"

namespace mhmoe::cli {
namespace {

struct BenchMachine {
  DeviceOptions device;
  std::vector<int64_t> sizes;
  int64_t megabytes = plan::kArrayBytes >> 20;
  double seconds = 4;
  bool json = false;
};

json::Value heading(const Backend& backend) {
  json::Value out = json::Value::object();
  out.add("device", backend.create_context(local_rank())->name());
  out.add("threads", thread_count());
  return out;
}

std::string heading_text(const char* what, const Backend& backend) {
  return fmt::format("{} on {}\n", what, backend.create_context(local_rank())->name());
}

struct PrecisionSpeeds {
  DType compute;
  std::vector<train::ProductSpeed> products;

  double peak() const { return std::ranges::max_element(products, {}, &train::ProductSpeed::best)->best; }
};

// Square ones of the sizes asked for; else of several, and those of paper 2's models at a micro-batch of 1024 tokens.
std::vector<train::Product> products_of(const std::vector<int64_t>& sizes) {
  std::vector<train::Product> products;
  for (const int64_t size : sizes) products.push_back({size, size, size});
  if (!products.empty()) return products;
  return {
      {512, 512, 512},         {1024, 1024, 1024}, {2048, 2048, 2048},
      {4096, 4096, 4096},      {1024, 2304, 768},  // queries, keys and values
      {1024, 768, 768},                            // attention's output, head layer, merge layer
      {1024, 4096, 768},                           // feed-forward's gate and up
      {1024, 768, 2048},                           // its down
      {256, 32000, 768},                           // output layer, as many rows as it takes at a time
      {4096, 768, 1024, true},                     // gradients of gate and up, and of the output layer
      {32000, 768, 256, true},
  };
}

const char* order_of(const train::Product& product) {
  return product.weight_gradient ? "tn" : "nt";
}

std::string gemm_text(const std::vector<PrecisionSpeeds>& speeds) {
  std::string out = fmt::format("{:<9} {:<24} {:>13} {:>15} {:>6}\n", "precision", "m x n x k", "best GFLOP/s",
                                "median GFLOP/s", "runs");
  for (const PrecisionSpeeds& precision : speeds) {
    for (const train::ProductSpeed& speed : precision.products) {
      const auto [m, n, k, weight_gradient] = speed.product;
      out += fmt::format("{:<9} {:<24} {:>13.1f} {:>15.1f} {:>6}\n", train::precision_name(precision.compute),
                         fmt::format("{} x {} x {} {}", m, n, k, order_of(speed.product)), speed.best * 1e-9,
                         speed.median * 1e-9, speed.runs);
    }
  }
  for (const PrecisionSpeeds& precision : speeds) {
    out += fmt::format("peak {}  {:.1f} GFLOP/s\n", train::precision_name(precision.compute), precision.peak() * 1e-9);
  }
  return out;
}

void add_gemm(json::Value& report, const std::vector<PrecisionSpeeds>& speeds) {
  json::Value& peak = report.add("peak_flops_per_second", json::Value::object());
  for (const PrecisionSpeeds& precision : speeds) {
    peak.add(std::string(train::precision_name(precision.compute)), precision.peak());
  }
  json::Value& products = report.add("products", json::Value::array());
  for (const PrecisionSpeeds& precision : speeds) {
    for (const train::ProductSpeed& speed : precision.products) {
      json::Value& entry = products.add(json::Value::object());
      entry.add("precision", train::precision_name(precision.compute));
      entry.add("m", speed.product.m);
      entry.add("n", speed.product.n);
      entry.add("k", speed.product.k);
      entry.add("order", order_of(speed.product));
      entry.add("best_flops_per_second", speed.best);
      entry.add("median_flops_per_second", speed.median);
      entry.add("runs", speed.runs);
    }
  }
}

void run_gemm(const BenchMachine& command) {
  const Backend& backend = open_device(command.device);
  const bool has_bf16 = backend.prefers_bf16(local_rank());
  std::vector<PrecisionSpeeds> speeds;
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    if (compute == DType::kBF16 && !has_bf16) continue;
    speeds.push_back(
        {compute, train::measure_products(backend, compute, products_of(command.sizes), command.seconds, 1)});
  }
  if (command.json) {
    json::Value report = heading(backend);
    if (!has_bf16) report.add("skipped", "bf16");
    add_gemm(report, speeds);
    return write_output(json::to_line(report) + "\n");
  }
  write_output(heading_text("matrix products", backend) + gemm_text(speeds) +
               (has_bf16 ? "" : "bf16 skipped: this device has no instructions for its products\n"));
}

void run_memory(const BenchMachine& command) {
  const Backend& backend = open_device(command.device);
  const int64_t bytes = command.megabytes << 20;
  const std::vector<plan::MemorySpeed> speeds = plan::measure_memory(backend, bytes, command.seconds);
  const double peak = std::ranges::max_element(speeds, {}, &plan::MemorySpeed::best)->best;
  if (command.json) {
    json::Value report = heading(backend);
    report.add("array_bytes", bytes);
    report.add("peak_bytes_per_second", peak);
    json::Value& loops = report.add("loops", json::Value::array());
    for (const plan::MemorySpeed& speed : speeds) {
      json::Value& entry = loops.add(json::Value::object());
      entry.add("loop", speed.loop);
      entry.add("best_bytes_per_second", speed.best);
      entry.add("median_bytes_per_second", speed.median);
      entry.add("runs", speed.runs);
    }
    return write_output(json::to_line(report) + "\n");
  }
  std::string out =
      heading_text("memory", backend) +
      fmt::format("arrays of {}; bytes that a loop reads and writes by its text\n{:<6} {:>10} {:>12} {:>6}\n",
                  plan::bytes_text(static_cast<size_t>(bytes)), "loop", "best GB/s", "median GB/s", "runs");
  for (const plan::MemorySpeed& speed : speeds) {
    out += fmt::format("{:<6} {:>10.2f} {:>12.2f} {:>6}\n", speed.loop, speed.best * 1e-9, speed.median * 1e-9,
                       speed.runs);
  }
  write_output(out + fmt::format("peak   {:>10.2f} GB/s\n", peak * 1e-9));
}

void add_shared_options(CLI::App& command, BenchMachine& options) {
  add_device_options(command, options.device);
  command.add_flag("--json", options.json, "print one JSON object");
}

}  // namespace

void add_bench_machine_commands(CLI::App& bench) {
  auto gemm_options = std::make_shared<BenchMachine>();
  CLI::App* gemm = bench.add_subcommand("gemm", "Measure the device's matrix peak in fp32 and bf16");
  gemm->footer(
      "Products of our matmul op: nt as layers make them, tn as gradients of weights are; the peak is the best of "
      "all.\n"
      "Example: mhmoe bench gemm --device cpu --threads 2 --json");
  add_shared_options(*gemm, *gemm_options);
  gemm->add_option("--sizes", gemm_options->sizes,
                   "square products of these alone; by default 512 to 4096, and those of paper 2's layers")
      ->delimiter(',')
      ->check(CLI::Range(1, 32768));
  gemm->add_option("--seconds", gemm_options->seconds,
                   "least seconds for each precision; every product runs once or more")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  gemm->callback([gemm_options] { run_gemm(*gemm_options); });

  auto memory_options = std::make_shared<BenchMachine>();
  CLI::App* memory = bench.add_subcommand("memory", "Measure the bandwidth of the device's memory, like STREAM");
  memory->footer(
      "read adds up one array; copy is the C library's, whose stores go past the caches; scale and triad store "
      "plainly:\n"
      "the line that a store overwrites is read first, which is not counted. A GPU has copy alone.\n"
      "Example: mhmoe bench memory --device cpu");
  add_shared_options(*memory, *memory_options);
  memory
      ->add_option("--megabytes", memory_options->megabytes,
                   "MiB of each of three arrays: at least four times the last cache")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  memory->add_option("--seconds", memory_options->seconds, "least seconds in all; every loop runs twice or more")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  memory->callback([memory_options] { run_memory(*memory_options); });
}

}  // namespace mhmoe::cli
