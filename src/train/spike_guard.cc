#include "train/spike_guard.h"

#include <algorithm>
#include <cmath>

#include "core/clock.h"

namespace mhmoe::train {
namespace {

constexpr double kNormalDeviation = 1.4826;
constexpr double kLeastDeviation = 0.01;  // of the median

void push(std::vector<double>& window, double value, int64_t size) {
  if (window.size() == static_cast<size_t>(size)) window.erase(window.begin());
  window.push_back(value);
}

json::Value to_list(const std::vector<double>& values) {
  json::Value list = json::Value::array();
  for (const double value : values) list.add(value);
  return list;
}

std::vector<double> from_list(const json::Value& state, const char* name) {
  const json::Value& list = json::member(state, name, json::Kind::kArray);
  std::vector<double> values;
  for (const json::Value& item : list.items) {
    if (!item.is_number()) fail(ExitCode::kBadData, "{}: {}: expected numbers", item.where(), name);
    values.push_back(item.real);
  }
  return values;
}

}  // namespace

// All memory at once, so that steps take none.
SpikeGuard::SpikeGuard(const SpikeGuardConfig& config) : config_(config) {
  if (config_.threshold == 0) return;
  for (auto* values : {&losses_, &norms_, &values_}) values->reserve(static_cast<size_t>(config_.window_steps));
}

double SpikeGuard::limit(const std::vector<double>& window) {
  values_ = window;
  const double middle = median(values_);
  for (double& value : values_) value = std::abs(value - middle);
  const double deviation = std::max(kNormalDeviation * median(values_), kLeastDeviation * middle);
  return middle + config_.threshold * deviation;
}

void SpikeGuard::set_limits() {
  limits_ = {};
  if (config_.threshold == 0 || losses_.size() < kFewestSteps) return;
  limits_ = {.loss = limit(losses_), .gradient_norm = limit(norms_)};
}

void SpikeGuard::add(double loss, double gradient_norm) {
  if (config_.threshold == 0) return;
  push(losses_, loss, config_.window_steps);
  push(norms_, gradient_norm, config_.window_steps);
  set_limits();
}

json::Value SpikeGuard::state() const {
  json::Value state = json::Value::object();
  state.add("losses", to_list(losses_));
  state.add("gradient_norms", to_list(norms_));
  return state;
}

void SpikeGuard::restore(const json::Value& state) {
  const std::vector<double> losses = from_list(state, "losses"), norms = from_list(state, "gradient_norms");
  losses_.assign(losses.begin(), losses.end());  // into the memory that they have
  norms_.assign(norms.begin(), norms.end());
  set_limits();
}

}  // namespace mhmoe::train
