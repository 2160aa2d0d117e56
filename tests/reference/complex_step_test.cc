// The oracle's hand-written backward against exact derivatives of its forward, for every element of every parameter.
#include <gtest/gtest.h>

#include <iostream>

#include "reference/variants.h"

namespace mhmoe::reference {
namespace {

using Complex = std::complex<double>;

constexpr double kStep = 1e-30;
constexpr double kTolerance = 1e-12;

Batch batch_of(const Variant& variant) {
  return random_batch(variant.config, 2, 3, variant.uncounted_targets, 5);
}

// d loss / d element, the routing held fixed.
double derivative(const Variant& variant, Parameters<Complex>& parameters, Complex& element, const Batch& batch,
                  const std::vector<Routing>& routing) {
  const double value = element.real();
  element = {value, kStep};
  const double slope = forward(variant.config, parameters, batch, {}, &routing).loss.imag() / kStep;
  element = value;
  return slope;
}

double largest(const Matrix<double>& matrix) {
  double result = 0;
  for (const double value : matrix.values) result = std::max(result, std::abs(value));
  return result;
}

// An expert that kept no assignment has no gradient; everything else has one.
bool may_be_zero(const std::string& name, const Forward<double>& run) {
  for (size_t layer = 0; layer < run.blocks.size(); ++layer) {
    const Routing routing = run.blocks[layer].moe.router.routing;
    for (size_t a = 0; a < routing.slot.size(); ++a) {
      const std::string expert = expert_name(layer_name(static_cast<int64_t>(layer)) + "moe.", routing.expert_index[a]);
      if (routing.kept(a) && name.starts_with(expert + ".")) return false;
    }
  }
  return name.find(".experts.") != std::string::npos;
}

std::string name_of(const testing::TestParamInfo<Variant>& info) {
  return info.param.name;
}

std::vector<Variant> moe_variants() {
  std::vector<Variant> variants = all_variants();
  std::erase_if(variants, [](const Variant& variant) { return variant.config.moe.every_n_layers == 0; });
  return variants;
}

class ComplexStep : public testing::TestWithParam<Variant> {};
class RouterGradient : public testing::TestWithParam<Variant> {};

TEST_P(ComplexStep, JudgesTheGradientOfEveryParameter) {
  const Variant& variant = GetParam();
  const Batch batch = batch_of(variant);
  const Parameters<double> parameters = random_parameters(parameter_shapes(variant.config), 17);
  const Forward<double> run = forward(variant.config, parameters, batch);
  const Parameters<double> grads = backward(variant.config, parameters, batch, run);
  double largest_of_model = 0;
  for (const auto& [name, grad] : grads) largest_of_model = std::max(largest_of_model, largest(grad));

  Parameters<Complex> complex = convert<Complex>(parameters);
  double worst = 0;
  size_t elements = 0;
  for (const auto& [name, grad] : grads) {
    const double own = largest(grad);
    EXPECT_TRUE(own > 0 || may_be_zero(name, run)) << name << " has no gradient";
    // Of its own largest, unless the tensor's gradients are tiny beside the model's.
    const double scale = std::max(own, 1e-3 * largest_of_model);
    for (size_t i = 0; i < grad.values.size(); ++i, ++elements) {
      const double exact = derivative(variant, complex, complex.at(name).values[i], batch, run.routing());
      const double deviation = std::abs(grad.values[i] - exact) / scale;
      worst = std::max(worst, deviation);
      ASSERT_LE(deviation, kTolerance) << name << " element " << i << ": " << grad.values[i] << ", exact " << exact;
    }
  }
  std::cout << variant.name << ": " << elements << " gradients, worst deviation " << worst << "\n";
}

TEST_P(RouterGradient, HasAGateAndABalancePart) {
  const Variant& variant = GetParam();
  const Batch batch = batch_of(variant);
  const Parameters<double> parameters = random_parameters(parameter_shapes(variant.config), 17);
  const Forward<double> run = forward(variant.config, parameters, batch);
  const std::string router = layer_name(variant.config.layers - 1) + "moe.router.weight";
  const Matrix<double> both = backward(variant.config, parameters, batch, run).at(router);
  const Matrix<double> gate = backward(variant.config, parameters, batch, run, {.balance_scale = 0}).at(router);
  Matrix<double> balance = both;
  for (size_t i = 0; i < both.values.size(); ++i) balance.values[i] -= gate.values[i];
  EXPECT_GT(largest(gate), 1e-3 * largest(both));
  EXPECT_GT(largest(balance), 1e-3 * largest(both));
}

TEST(Variants, DropAssignmentsAndKeepAllOfThem) {
  for (const auto& [name, config, uncounted] : moe_variants()) {
    if (name != "everything_with_drops" && name != "mhmoe_h4_half_capacity" && name != "everything_dropless") continue;
    const Parameters<double> parameters = random_parameters(parameter_shapes(config), 17);
    size_t dropped = 0;
    for (const Routing& routing : forward(config, parameters, batch_of({name, config, uncounted})).routing()) {
      for (size_t a = 0; a < routing.slot.size(); ++a) dropped += !routing.kept(a);
    }
    EXPECT_EQ(dropped > 0, config.moe.capacity_factor.has_value()) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, ComplexStep, testing::ValuesIn(all_variants()), name_of);
INSTANTIATE_TEST_SUITE_P(Variants, RouterGradient, testing::ValuesIn(moe_variants()), name_of);

}  // namespace
}  // namespace mhmoe::reference
