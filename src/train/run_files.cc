#include "train/run_files.h"

#include <chrono>

#include "core/hash.h"
#include "core/json.h"
#include "core/log.h"

namespace mhmoe::train {
namespace {

constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kPerplexity = "perplexity.csv";
constexpr const char* kRouting = "routing.jsonl";
constexpr const char* kEvents = "tensorboard";

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string reason(Refusal refusal) {
  return refusal == Refusal::kNotFinite ? "not finite" : "spike";
}

// A file that the run did not write at its checkpoint, say because routing was not recorded then, stays as it is.
template <class File>
void cut(File& file, const std::map<std::string, int64_t>& bytes, const char* name) {
  if (bytes.empty()) return file.truncate(0);
  const auto found = bytes.find(name);
  if (found == bytes.end()) return;
  if (file.size() >= found->second) return file.truncate(found->second);
  log::warning("{}: holds {} bytes, and {} at the checkpoint: records of earlier steps are lost; the run goes on",
               file.path(), file.size(), found->second);
}

}  // namespace

RunFiles::RunFiles(const std::string& folder, Layout layout, const std::map<std::string, int64_t>& bytes)
    : layout_(std::move(layout)),
      metrics_(folder + "/" + kMetrics),
      perplexity_(folder + "/" + kPerplexity),
      events_(tensorboard_path(folder)) {
  cut(metrics_, bytes, kMetrics);
  cut(perplexity_, bytes, kPerplexity);
  cut(events_, bytes, kEvents);
  if (layout_.routing) {
    routing_.emplace(folder + "/" + kRouting);
    cut(*routing_, bytes, kRouting);
  }
  if (perplexity_.size() > 0) return;
  std::string header = "step,tokens,flops,seconds,train/perplexity";
  for (const std::string& name : layout_.validation_sets) {
    header += fmt::format(",validation/{0}/perplexity,validation/{0}/perplexity_dropless", name);
  }
  perplexity_.write_line(header);
}

void RunFiles::append(const Record& record) {
  const auto values = scalars(record, layout_.has_moe);
  json::Value line = json::Value::object();
  line.add("step", record.step);
  line.add("tokens", record.tokens);
  line.add("flops", record.flops);
  line.add("seconds", record.seconds);
  line.add("run_hash", to_hex(record.run_hash));
  for (const auto& [name, value] : values) line.add(name, value);
  metrics_.write_line(json::to_line(line));
  perplexity_.write_line(csv_line(record));
  events_.scalars(record.step, wall_time(), values);
}

std::string RunFiles::csv_line(const Record& record) const {
  std::string line = fmt::format("{},{},{:.6e},{:.3f},", record.step, record.tokens, record.flops, record.seconds);
  if (record.train) line += fmt::format("{}", record.train->perplexity());
  for (const ValidationScore& score : record.validation) {
    line += fmt::format(",{},{}", score.perplexity(), score.perplexity_dropless());
  }
  if (record.validation.empty()) line += std::string(2 * layout_.validation_sets.size(), ',');
  return line;
}

void RunFiles::append_refusal(const StepResult& result, const std::string& first_bad_tensor, int64_t in_a_row) {
  json::Value line = json::Value::object();
  line.add("step", result.step);
  line.add("refused", reason(result.refusal));
  line.add("loss", result.loss);
  line.add("grad_norm", result.gradient_norm);
  line.add("refused_in_a_row", in_a_row);
  if (!first_bad_tensor.empty()) line.add("first_bad_tensor", first_bad_tensor);
  metrics_.write_line(json::to_line(line));
}

void RunFiles::append_routing(int64_t step, const RoutingRecord& routing) {
  routing_.value().write_line(routing.json_line(step));
  for (const LayerRouting& layer : routing.layers) {
    events_.bars(step, wall_time(), fmt::format("moe/load/layer_{}", layer.layer), layer.load);
  }
}

void RunFiles::note(const std::string& name, const std::string& markdown) {
  events_.text(0, wall_time(), name, markdown);
}

std::map<std::string, int64_t> RunFiles::bytes() const {
  std::map<std::string, int64_t> out = {
      {kMetrics, metrics_.size()}, {kPerplexity, perplexity_.size()}, {kEvents, events_.size()}};
  if (routing_) out[kRouting] = routing_->size();
  return out;
}

void RunFiles::sync() {
  metrics_.sync();
  perplexity_.sync();
  if (routing_) routing_->sync();
  events_.sync();
}

}  // namespace mhmoe::train
