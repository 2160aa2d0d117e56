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

double SpikeGuard::limit(std::vector<double> values) const {
  const double middle = median(values);
  for (double& value : values) value = std::abs(value - middle);
  const double deviation = std::max(kNormalDeviation * median(values), kLeastDeviation * middle);
  return middle + config_.threshold * deviation;
}

StepLimits SpikeGuard::limits() const {
  if (config_.threshold == 0 || losses_.size() < kFewestSteps) return {};
  return {.loss = limit(losses_), .gradient_norm = limit(norms_)};
}

void SpikeGuard::add(double loss, double gradient_norm) {
  if (config_.threshold == 0) return;
  push(losses_, loss, config_.window_steps);
  push(norms_, gradient_norm, config_.window_steps);
}

json::Value SpikeGuard::state() const {
  json::Value state = json::Value::object();
  state.add("losses", to_list(losses_));
  state.add("gradient_norms", to_list(norms_));
  return state;
}

void SpikeGuard::restore(const json::Value& state) {
  losses_ = from_list(state, "losses");
  norms_ = from_list(state, "gradient_norms");
}

}  // namespace mhmoe::train
