#include "plan/train_report.h"

#include "plan/report.h"
#include "train/flops.h"

namespace mhmoe::plan {
namespace {

constexpr double kMilli = 1e3;
constexpr const char* kBetweenOps = "between_ops";

std::string part_row(std::string_view name, double seconds, double step) {
  return fmt::format("{:<16} {:>10.2f} {:>6.1f} %", name, kMilli * seconds, 100 * seconds / step);
}

std::string parts_text(const TrainReport& report) {
  const PartTimes& parts = report.times.parts;
  const double step = parts.step();
  std::string out = fmt::format("{:<16} {:>10} {:>8} {:>10} {:>10}\n", "part", "ms", "of step", "floor ms", "of floor");
  const auto with_floor = [&](std::string_view name, double seconds, double floor) {
    out +=
        part_row(name, seconds, step) + fmt::format(" {:>10.2f} {:>8.1f} %\n", kMilli * floor, 100 * floor / seconds);
  };
  for (const StepPart part : kStepParts) {
    if (parts.ops[part] > 0) with_floor(to_string(part), parts.ops[part], report.floors[part]);
  }
  out += part_row(kBetweenOps, parts.between_ops, step) + "\n";
  with_floor("sum", step, report.floors.sum());
  out += fmt::format("the observed step took {:.3f} times the median of those that are not observed\n",
                     step / report.times.median_seconds);
  return out;
}

std::string moe_text(const TrainReport& report) {
  if (report.config.model.moe_layers() == 0) return "";
  const RowsPerExpert& rows = report.times.rows_per_expert;
  std::string out = fmt::format("rows per expert  {} least, {} median, {} most\n", rows.least, rows.median, rows.most);
  out += fmt::format("dropped          {:.2f} %\n", 100 * report.times.moe.dropped_fraction);
  return out +
         fmt::format(
             "routing          {:.1f} % of the step: router, dispatch and combine (the split into heads is a view and "
             "takes no time)\n",
             100 * report.routing_share());
}

std::string memory_text(const TrainReport& report) {
  return fmt::format("memory           {} of the process, {} in arenas\n",
                     bytes_text(static_cast<size_t>(report.times.process_peak_bytes)),
                     bytes_text(report.times.arena_bytes));
}

std::string ranks_text(const TrainReport& report) {
  const comm::Layout& layout = report.times.layout;
  if (layout.world == 1) return "";
  const WaitingSeconds& waiting = report.times.waiting;
  const double step = report.times.median_seconds;
  const auto share = [&](double seconds) { return fmt::format("{:.1f} %", 100 * seconds / step); };
  return fmt::format("ranks            {}, expert-parallel size {}{}\n", layout.world, layout.expert_parallel_size,
                     report.config.parallel.width_invariant ? ", width_invariant" : "") +
         fmt::format("waiting          {} of the step: {} for routed rows, {} for reductions, {} for weights\n",
                     share(waiting.sum()), share(waiting.all_to_all), share(waiting.reduction), share(waiting.gather));
}

}  // namespace

double TrainReport::tokens_per_second() const {
  return static_cast<double>(config.train.batch_tokens) / times.median_seconds;
}

double TrainReport::model_flops_per_second() const {
  return tokens_per_second() * train::training_flops_per_token(config.model, config.data.sequence_length);
}

int64_t TrainReport::peak_memory_bytes() const {
  return times.kind == DeviceKind::kCpu ? times.process_peak_bytes : static_cast<int64_t>(times.arena_bytes);
}

double TrainReport::routing_share() const {
  const PartSeconds& ops = times.parts.ops;
  return (ops[StepPart::kRouter] + ops[StepPart::kDispatch] + ops[StepPart::kCombine]) / times.parts.step();
}

std::string train_text(const TrainReport& report) {
  const double peak = report.peak_flops_per_second();
  std::string out =
      fmt::format("{}: steps of {} tokens in {} on {}\n", report.config.name, report.config.train.batch_tokens,
                  train::precision_name(report.compute), report.times.device);
  out += ranks_text(report);
  out += fmt::format("step             {:.4g} s (median), {:.4g} s (best)\n", report.times.median_seconds,
                     report.times.best_seconds);
  out += fmt::format("tokens/s         {:.4g}\n", report.tokens_per_second());
  out += fmt::format("model FLOP/s     {}\n", scaled(report.model_flops_per_second()));
  out += fmt::format("share of peak    {:.1f} % of the {}FLOP/s that a large product reached here\n",
                     100 * report.share_of_peak(), scaled(peak));
  if (report.gpu != nullptr) {
    const int world = report.times.layout.world;
    out += fmt::format("MFU              {:.1f} % of the {}FLOP/s of {}{}'s data sheet\n", 100 * report.mfu(),
                       scaled(report.promised_flops_per_second()), world == 1 ? "" : fmt::format("{} times ", world),
                       report.gpu->name);
  }
  out += moe_text(report) + memory_text(report);
  out += fmt::format("\nfloors: {}FLOP/s, {}B/s, measured in this run\n", scaled(peak / report.times.layout.world),
                     scaled(report.measured.bytes_per_second));
  return out + parts_text(report);
}

json::Value train_json(const TrainReport& report) {
  const StepTimes& times = report.times;
  json::Value out = json::Value::object();
  out.add("name", report.config.name);
  out.add("precision", train::precision_name(report.compute));
  out.add("device", times.device);
  out.add("threads", report.threads);
  out.add("seconds_per_step", times.median_seconds);
  out.add("best_seconds_per_step", times.best_seconds);
  out.add("tokens_per_second", report.tokens_per_second());
  out.add("model_flops_per_second", report.model_flops_per_second());
  out.add("share_of_peak", report.share_of_peak());
  out.add("peak_flops_per_second", report.peak_flops_per_second());
  out.add("memory_bytes_per_second", report.measured.bytes_per_second);
  if (report.gpu != nullptr) {
    out.add("gpu", report.gpu->name);
    out.add("mfu", report.mfu());
  }
  out.add("ranks", times.layout.world);
  out.add("expert_parallel_size", times.layout.expert_parallel_size);
  json::Value& waiting = out.add("waiting_seconds_per_step", json::Value::object());
  waiting.add("all_to_all", times.waiting.all_to_all);
  waiting.add("reduction", times.waiting.reduction);
  waiting.add("gather", times.waiting.gather);
  out.add("observed_seconds_per_step", times.parts.step());
  json::Value& seconds = out.add("seconds_by_part", json::Value::object());
  for (const StepPart part : kStepParts) seconds.add(std::string(to_string(part)), times.parts.ops[part]);
  seconds.add(kBetweenOps, times.parts.between_ops);
  json::Value& floors = out.add("floor_seconds_by_part", json::Value::object());
  for (const StepPart part : kStepParts) floors.add(std::string(to_string(part)), report.floors[part]);
  out.add("routing_share", report.routing_share());
  json::Value& rows = out.add("rows_per_expert", json::Value::object());
  rows.add("min", times.rows_per_expert.least);
  rows.add("median", times.rows_per_expert.median);
  rows.add("max", times.rows_per_expert.most);
  out.add("dropped_fraction", times.moe.dropped_fraction);
  out.add("peak_memory_bytes", report.peak_memory_bytes());
  out.add("process_peak_bytes", times.process_peak_bytes);
  out.add("arena_bytes", static_cast<int64_t>(times.arena_bytes));
  return out;
}

}  // namespace mhmoe::plan
