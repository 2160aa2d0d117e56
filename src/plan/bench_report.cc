#include "plan/bench_report.h"

#include <algorithm>
#include <optional>

#include "plan/report.h"

namespace mhmoe::plan {
namespace {

constexpr double kMicro = 1e6;

std::optional<double> time_of(const OpsReport& report, const OpCost& cost) {
  const auto at = std::ranges::find_if(
      report.times, [&](const OpTime& time) { return time.op == cost.op && time.shape == cost.shape; });
  return at == report.times.end() ? std::nullopt : std::optional(at->seconds);
}

const char* bound_by(const OpCost& cost, const Gpu& gpu) {
  return cost.flops / gpu.flops(cost.product) > cost.bytes / gpu.bytes_per_second ? "compute" : "memory";
}

std::string heading_of(const OpsReport& report) {
  const train::RunConfig& config = report.config;
  std::string out = fmt::format("{}: one step of {} tokens in micro-batches of {} x {}, {}", config.name,
                                config.train.batch_tokens, config.train.micro_batch_sequences,
                                config.data.sequence_length, train::precision_name(report.compute));
  if (!report.device.empty()) out += fmt::format("; timed on {}", report.device);
  if (report.gpu != nullptr) out += fmt::format("; floors of {}", report.gpu->name);
  return out + "\n";
}

std::string row_text(const OpsReport& report, const OpWork& row, double step_seconds, size_t width) {
  std::string out = fmt::format("{:<22} {:<{}} {:>7} {:>10.3f} {:>10.3f}", row.cost.op, row.cost.shape, width,
                                row.calls, row.cost.bytes / 1e6, row.cost.flops / 1e9);
  const double floor = report.gpu == nullptr ? 0 : floor_seconds(row.cost, *report.gpu);
  const std::optional<double> time = time_of(report, row.cost);
  if (report.gpu != nullptr) out += fmt::format(" {:>10.2f} {:<7}", floor * kMicro, bound_by(row.cost, *report.gpu));
  if (time) out += fmt::format(" {:>11.2f}", *time * kMicro);
  if (time && report.gpu != nullptr) out += fmt::format(" {:>9.1f} %", 100 * floor / *time);
  const double share = static_cast<double>(row.calls) * time.value_or(floor) / step_seconds;
  return out + fmt::format(" {:>6.2f} %\n", 100 * share);
}

double timed_seconds(const OpsReport& report) {
  double seconds = 0;
  for (const OpWork& row : report.work) {
    seconds += static_cast<double>(row.calls) * time_of(report, row.cost).value_or(0);
  }
  return seconds;
}

std::string floor_text(const OpsReport& report) {
  const StepFloor step = floor_of_step(report.work, report.config, *report.gpu);
  return fmt::format(
      "floor of the step on {}: {:.3f} ms, {:.4g} tokens/s, {}FLOP/s of the model, MFU at most {:.1f} %\n",
      report.gpu->name, 1e3 * step.seconds, step.tokens_per_second(), scaled(step.model_flops_per_second()),
      100 * step.model_flops_per_second() / report.gpu->flops(report.compute));
}

}  // namespace

std::string ops_text(const OpsReport& report) {
  const bool timed = !report.times.empty();
  size_t width = 0;
  for (const OpWork& row : report.work) width = std::max(width, row.cost.shape.size());
  std::string out = heading_of(report);
  out += fmt::format("{:<22} {:<{}} {:>7} {:>10} {:>10}", "op", "shape", width, "calls", "MB", "GFLOP");
  if (report.gpu != nullptr) out += fmt::format(" {:>10} {:<7}", "floor us", "bound");
  if (timed) out += fmt::format(" {:>11}", "time us");
  if (timed && report.gpu != nullptr) out += fmt::format(" {:>11}", "of floor");
  out += fmt::format(" {:>8}\n", "of step");
  const double step_seconds = timed                   ? timed_seconds(report)
                              : report.gpu == nullptr ? 1
                                                      : floor_of_step(report.work, report.config, *report.gpu).seconds;
  for (const OpWork& row : report.work) out += row_text(report, row, step_seconds, width);
  if (report.gpu != nullptr) out += floor_text(report);
  if (timed) {
    out += fmt::format(
        "ops one after the other: {:.3f} ms a step, {:.4g} tokens/s; waiting alone takes {:.2f} us, which is in every "
        "time\n",
        1e3 * step_seconds, static_cast<double>(report.config.train.batch_tokens) / step_seconds,
        report.idle_seconds * kMicro);
  }
  return out;
}

json::Value ops_json(const OpsReport& report) {
  json::Value out = json::Value::object();
  out.add("name", report.config.name);
  out.add("precision", train::precision_name(report.compute));
  if (!report.device.empty()) out.add("device", report.device);
  if (report.gpu != nullptr) {
    const StepFloor step = floor_of_step(report.work, report.config, *report.gpu);
    out.add("gpu", report.gpu->name);
    json::Value& floor = out.add("floor", json::Value::object());
    floor.add("seconds", step.seconds);
    floor.add("bytes", step.bytes);
    floor.add("flops", step.flops);
    floor.add("model_flops", step.model_flops);
    floor.add("tokens", step.tokens);
    floor.add("mfu", step.model_flops_per_second() / report.gpu->flops(report.compute));
  }
  json::Value& ops = out.add("ops", json::Value::array());
  for (const OpWork& row : report.work) {
    json::Value& op = ops.add(json::Value::object());
    op.add("op", row.cost.op);
    op.add("shape", row.cost.shape);
    op.add("calls", row.calls);
    op.add("bytes", row.cost.bytes);
    op.add("flops", row.cost.flops);
    if (report.gpu != nullptr) {
      op.add("floor_seconds", floor_seconds(row.cost, *report.gpu));
      op.add("bound", bound_by(row.cost, *report.gpu));
    }
    if (const auto time = time_of(report, row.cost)) op.add("seconds", *time);
  }
  return out;
}

}  // namespace mhmoe::plan
