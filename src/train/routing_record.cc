#include "train/routing_record.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/json.h"

namespace mhmoe::train {
namespace {

// i of "layers.{i}.moe.{what}".
std::optional<int64_t> layer_of(std::string_view name, std::string_view what) {
  static constexpr std::string_view kBegin = "layers.", kMiddle = ".moe.";
  if (!name.starts_with(kBegin) || !name.ends_with(what)) return std::nullopt;
  int64_t layer = 0;
  const char* end = name.data() + name.size() - what.size();
  const auto [after, error] = std::from_chars(name.data() + kBegin.size(), end, layer);
  if (error != std::errc() || std::string_view(after, static_cast<size_t>(end - after)) != kMiddle) return std::nullopt;
  return layer;
}

double sum_of(const std::vector<int64_t>& counts) {
  return static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
}

template <class F>
void for_each_count(LayerRouting& routing, F&& f) {
  for (auto* counts : {&routing.load, &routing.dropped, &routing.different_experts}) std::ranges::for_each(*counts, f);
  for (std::vector<int64_t>& head : routing.head_load) std::ranges::for_each(head, f);
}

// Of one layer's balance losses, added up in the order of micro-batches, which is that of ranks. of_ranks: floats, as
// many of every layer, one layer's after another's.
double mean_in_order(const std::vector<std::string>& of_ranks, size_t layer, size_t layers) {
  double sum = 0;
  size_t all = 0;
  for (const std::string& bytes : of_ranks) {
    std::vector<float> losses(bytes.size() / sizeof(float) / layers);
    std::memcpy(losses.data(), bytes.data() + layer * losses.size() * sizeof(float), losses.size() * sizeof(float));
    for (const float loss : losses) sum += loss;
    all += losses.size();
  }
  return sum / static_cast<double>(all);
}

json::Value to_array(const std::vector<int64_t>& counts) {
  json::Value out = json::Value::array();
  for (const int64_t count : counts) out.add(count);
  return out;
}

}  // namespace

double LayerRouting::mean_different_experts() const {
  double weighted = 0;
  for (size_t i = 0; i < different_experts.size(); ++i) {
    weighted += static_cast<double>(i + 1) * static_cast<double>(different_experts[i]);
  }
  return weighted / sum_of(different_experts);
}

double LayerRouting::load_entropy() const {
  const double total = sum_of(load);
  double entropy = 0;
  for (const int64_t expert_load : load) {
    const double share = static_cast<double>(expert_load) / total;
    if (share > 0) entropy -= share * std::log(share);
  }
  return entropy;
}

double LayerRouting::load_max_over_mean() const {
  return static_cast<double>(std::ranges::max(load)) * static_cast<double>(load.size()) / sum_of(load);
}

std::string RoutingRecord::json_line(int64_t step) const {
  json::Value line = json::Value::object();
  line.add("step", step);
  json::Value& all = line.add("layers", json::Value::array());
  for (const LayerRouting& routing : layers) {
    json::Value& layer = all.add(json::Value::object());
    layer.add("layer", routing.layer);
    layer.add("load", to_array(routing.load));
    layer.add("dropped", to_array(routing.dropped));
    json::Value& heads = layer.add("head_load", json::Value::array());
    for (const std::vector<int64_t>& head : routing.head_load) heads.add(to_array(head));
    layer.add("different_experts", to_array(routing.different_experts));
    layer.add("different_experts_mean", routing.mean_different_experts());
    layer.add("load_entropy", routing.load_entropy());
    layer.add("load_max_over_mean", routing.load_max_over_mean());
    layer.add("balance_loss", routing.balance_loss);
  }
  return json::to_line(line);
}

void RoutingRecorder::record(const std::string& name, const Tensor& tensor) {
  if (name == "losses") {
    seen_.clear();
    return;
  }
  const std::optional<int64_t> chosen = layer_of(name, "expert_index");
  const std::optional<int64_t> balance = layer_of(name, "balance_loss");
  if ((!chosen && !balance) || !seen_.insert(name).second) return;
  if (chosen) {
    add_choices(sums_[*chosen], tensor);
  } else {
    float loss = 0;
    ctx_.download(&loss, tensor);
    balance_losses_[*balance].push_back(loss);
  }
}

void RoutingRecorder::add_choices(LayerRouting& sums, const Tensor& expert_index) const {
  const auto experts = static_cast<size_t>(moe_.experts), heads = static_cast<size_t>(moe_.heads);
  const auto k = static_cast<size_t>(moe_.top_k), rows = static_cast<size_t>(expert_index.rows());
  sums.load.resize(experts);
  sums.dropped.resize(experts);
  sums.head_load.resize(heads, std::vector<int64_t>(experts));
  sums.different_experts.resize(std::min(heads * k, experts));

  std::vector<int32_t> chosen(rows * k);
  ctx_.download(chosen.data(), expert_index);
  std::vector<int64_t> load(experts);
  std::vector<int32_t> token;  // the choices of one token, all its sub-tokens together
  for (size_t row = 0; row < rows; ++row) {
    for (size_t j = 0; j < k; ++j) {
      const int32_t expert = chosen[row * k + j];
      ++load[static_cast<size_t>(expert)];
      ++sums.head_load[row % heads][static_cast<size_t>(expert)];
      token.push_back(expert);
    }
    if (row % heads != heads - 1) continue;
    std::ranges::sort(token);
    const auto different = std::unique(token.begin(), token.end()) - token.begin();
    ++sums.different_experts[static_cast<size_t>(different - 1)];
    token.clear();
  }
  const int64_t capacity = nn::expert_capacity(moe_, moe_.capacity_factor, expert_index.rows());
  for (size_t e = 0; e < experts; ++e) {
    sums.load[e] += load[e];
    if (capacity > 0) sums.dropped[e] += std::max<int64_t>(0, load[e] - capacity);
  }
}

RoutingRecord RoutingRecorder::record(Job& job) const {
  RoutingRecord out;
  std::vector<int64_t> counts;
  std::string losses;
  for (const auto& [layer, sums] : sums_) {
    LayerRouting& routing = out.layers.emplace_back(sums);
    routing.layer = layer;
    for_each_count(routing, [&](int64_t& count) { counts.push_back(count); });
    const std::vector<float>& own = balance_losses_.at(layer);
    losses.append(reinterpret_cast<const char*>(own.data()), own.size() * sizeof(float));
  }
  job.sum(counts);
  const std::vector<std::string> of_ranks = job.gather(losses);
  auto count = counts.begin();
  for (size_t i = 0; i < out.layers.size(); ++i) {
    for_each_count(out.layers[i], [&](int64_t& own) { own = *count++; });
    out.layers[i].balance_loss = mean_in_order(of_ranks, i, out.layers.size());
  }
  return out;
}

}  // namespace mhmoe::train
