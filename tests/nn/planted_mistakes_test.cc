// The judges can fail: one kernel of the CPU backend at a time is given a typical mistake of a hand-written backward,
// and the comparison with the oracle must see it. (The oracle is judged by complex steps in tests/reference.)
#include <gtest/gtest.h>

#include <iostream>

#include "cpu/backend.h"
#include "nn/judged_model.h"
#include "ops/kernel_table.h"
#include "reference/step.h"

namespace mhmoe::nn_test {
namespace {

// The kernels without mistakes.
const ops::KernelTable& right() {
  return cpu::backend().kernels;
}

void zero(const Tensor& tensor) {
  std::fill_n(tensor.as<float>(), tensor.count(), 0.0f);
}

// The gradient without the term that keeps it orthogonal to x.
void norm_without_projection(Context& ctx, const ops::RmsNormBackward& args) {
  right().rms_norm_backward(ctx, args);
  const int64_t d = args.x.cols();
  for (int64_t r = 0; r < args.x.rows(); ++r) {
    const float* x = args.x.as<float>() + r * d;
    const float* grad_y = args.grad_y.as<float>() + r * d;
    const float scale = args.inv_rms.as<float>()[r];
    float along_x = 0;
    for (int64_t c = 0; c < d; ++c) along_x += grad_y[c] * args.weight.as<float>()[c] * x[c];
    for (int64_t c = 0; c < d; ++c) {
      args.grad_x.as<float>()[r * d + c] += x[c] * along_x * scale * scale * scale / static_cast<float>(d);
    }
  }
}

void norm_forgets_residual_path(Context& ctx, const ops::RmsNormBackward& args) {
  zero(args.grad_x);
  right().rms_norm_backward(ctx, args);
}

void gate_gradient_of_the_scaled_output(Context& ctx, const ops::ActivationBackward& args) {
  right().activation_backward(ctx, args);
  for (int64_t a = 0; a < args.grad_gate.count(); ++a) args.grad_gate.as<float>()[a] *= args.gate.as<float>()[a];
}

void gate_gradient_without_the_bias(Context& ctx, const ops::GroupedBiasBackward& args) {
  if (args.grad_gate.empty()) return right().grouped_bias_backward(ctx, args);
  const std::vector<float> before(args.grad_gate.as<float>(), args.grad_gate.as<float>() + args.grad_gate.count());
  right().grouped_bias_backward(ctx, args);
  std::copy(before.begin(), before.end(), args.grad_gate.as<float>());
}

void router_without_balance_term(Context& ctx, const ops::RouterBackward& args) {
  ops::RouterBackward changed = args;
  changed.balance_scale = 0;
  right().router_backward(ctx, changed);
}

void router_without_renormalisation(Context& ctx, const ops::RouterBackward& args) {
  ops::RouterBackward changed = args;
  changed.normalize = false;
  right().router_backward(ctx, changed);
}

void matmul_overwrites(Context& ctx, const ops::Matmul& args) {
  ops::Matmul changed = args;
  if (args.transpose_a) changed.addend = {};  // the weight gradients
  right().matmul(ctx, changed);
}

void combine_forgets_addend(Context& ctx, const ops::CombineRows& args) {
  ops::CombineRows changed = args;
  changed.addend = {};
  right().combine_rows(ctx, changed);
}

void dropped_assignments_are_kept(Context& ctx, const ops::CombineRows& args) {
  std::vector<int32_t> rows(args.row_of.as<int32_t>(), args.row_of.as<int32_t>() + args.row_of.count());
  for (int32_t& row : rows) row = std::max(row, 0);
  ops::CombineRows changed = args;
  changed.row_of.data = rows.data();
  right().combine_rows(ctx, changed);
}

void rotary_is_not_turned_back(Context& ctx, const ops::Rotary& args) {
  ops::Rotary changed = args;
  changed.inverse = false;
  right().rotary(ctx, changed);
}

void attention_sees_the_future_in_backward(Context& ctx, const ops::AttentionBackward& args) {
  ops::AttentionBackward changed = args;
  changed.shape.mask = ops::AttentionMask::kFull;
  right().attention_backward(ctx, changed);
}

void grouped_weights_overwrite(Context& ctx, const ops::GroupedWeightGrad& args) {
  zero(args.grad_weight);
  right().grouped_weight_grad(ctx, args);
}

void biases_overwrite(Context& ctx, const ops::BiasBackward& args) {
  zero(args.grad_bias);
  right().bias_backward(ctx, args);
}

void embedding_overwrites(Context& ctx, const ops::EmbeddingBackward& args) {
  zero(args.grad_table);
  right().embedding_backward(ctx, args);
}

struct Mistake {
  const char* name;
  void (*plant)(ops::KernelTable&);
};

std::ostream& operator<<(std::ostream& out, const Mistake& mistake) {
  return out << mistake.name;
}

constexpr Mistake kMistakes[] = {
    {"norm_without_projection", [](ops::KernelTable& t) { t.rms_norm_backward = norm_without_projection; }},
    {"norm_forgets_residual_path", [](ops::KernelTable& t) { t.rms_norm_backward = norm_forgets_residual_path; }},
    {"gate_gradient_scaled", [](ops::KernelTable& t) { t.activation_backward = gate_gradient_of_the_scaled_output; }},
    {"gate_gradient_without_bias",
     [](ops::KernelTable& t) { t.grouped_bias_backward = gate_gradient_without_the_bias; }},
    {"balance_term_missing", [](ops::KernelTable& t) { t.router_backward = router_without_balance_term; }},
    {"renormalisation_missing", [](ops::KernelTable& t) { t.router_backward = router_without_renormalisation; }},
    {"weights_overwrite", [](ops::KernelTable& t) { t.matmul = matmul_overwrites; }},
    {"expert_weights_overwrite", [](ops::KernelTable& t) { t.grouped_weight_grad = grouped_weights_overwrite; }},
    {"biases_overwrite", [](ops::KernelTable& t) { t.bias_backward = biases_overwrite; }},
    {"embedding_overwrites", [](ops::KernelTable& t) { t.embedding_backward = embedding_overwrites; }},
    {"combine_forgets_addend", [](ops::KernelTable& t) { t.combine_rows = combine_forgets_addend; }},
    {"dropped_assignments_are_kept", [](ops::KernelTable& t) { t.combine_rows = dropped_assignments_are_kept; }},
    {"rotary_not_turned_back", [](ops::KernelTable& t) { t.rotary = rotary_is_not_turned_back; }},
    {"attention_sees_the_future",
     [](ops::KernelTable& t) { t.attention_backward = attention_sees_the_future_in_backward; }},
};

// Two micro-batches of the model that turns most switches, so that every kernel is used and accumulation matters.
class PlantedMistakes : public testing::TestWithParam<Mistake> {
 protected:
  static reference::Deviation judge(const ops::KernelTable& kernels) {
    nn::ModelConfig config;
    for (const reference::Variant& variant : reference::all_variants()) {
      if (variant.name == "everything_with_drops") config = variant.config;
    }
    const std::vector<Batch> batches = {reference::random_batch(config, 2, 4, false, 1),
                                        reference::random_batch(config, 1, 4, true, 2)};
    const Parameters<double> parameters = reference::clear_parameters(config, batches);
    return deviation_of(run_model(config, parameters, batches, {.kernels = &kernels}),
                        reference::expected_of(config, parameters, batches), reference::kSinglePrecision);
  }
};

TEST_F(PlantedMistakes, NoneInTheBackendItself) {
  const reference::Deviation worst = judge(right());
  EXPECT_LE(worst.value, 1) << worst.text;
}

TEST_P(PlantedMistakes, AreSeen) {
  ops::KernelTable kernels = right();
  GetParam().plant(kernels);
  const reference::Deviation worst = judge(kernels);
  EXPECT_GT(worst.value, 10) << GetParam().name << " is not seen: worst " << worst.text;
  std::cout << GetParam().name << " is seen in " << worst.text << "\n";
}

INSTANTIATE_TEST_SUITE_P(All, PlantedMistakes, testing::ValuesIn(kMistakes),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace mhmoe::nn_test
