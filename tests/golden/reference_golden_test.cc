// The oracle in double against the golden vectors of every file of the folder.
#include "golden/golden_check.h"

namespace mhmoe::golden {
namespace {

constexpr Bounds kBounds = {.absolute = 1e-11};

void add_routing(Outputs& outputs, const std::string& prefix, const reference::RouterSaved<double>& router) {
  const auto widen = [](const std::vector<int64_t>& values) {
    return std::vector<double>(values.begin(), values.end());
  };
  outputs[prefix + "balance_loss"] = {router.balance_loss};
  outputs[prefix + "gate_weight"] = router.gate_weight.values;
  outputs[prefix + "expert_index"] = widen(router.routing.expert_index);
  outputs[prefix + "slot"] = widen(router.routing.slot);
}

void add_gradients(Outputs& outputs, const Parameters<double>& grads) {
  for (const auto& [name, grad] : grads) outputs["grad." + name] = grad.values;
}

void check_decoder(const GoldenCase& golden) {
  const reference::Forward<double> run = reference::forward(golden.config, golden.parameters, golden.batch);
  Outputs outputs;
  outputs["logits"] = run.logits.values;
  outputs["cross_entropy"] = {run.cross_entropy};
  for (size_t i = 0; i < run.blocks.size(); ++i) {
    const std::string layer = reference::layer_name(static_cast<int64_t>(i));
    outputs[layer + "output"] = run.blocks[i].output.values;
    if (golden.config.is_moe_layer(static_cast<int64_t>(i))) {
      add_routing(outputs, layer + "moe.", run.blocks[i].moe.router);
    }
  }
  add_gradients(outputs, reference::backward(golden.config, golden.parameters, golden.batch, run));
  const auto rows = static_cast<int64_t>(golden.batch.tokens.size()) * golden.config.moe.heads;
  check(golden, outputs, kBounds, reference::capacity_of(golden.config.moe, rows));
  EXPECT_NEAR(run.loss, captured(golden, "objective_value", "^(.*)$"), 1e-11 * run.loss);
}

void check_layer(const GoldenCase& golden) {
  reference::MoeSaved<double> saved;
  Outputs outputs;
  outputs["y"] = reference::moe(saved, golden.parameters, "", golden.config, golden.x).values;
  Parameters<double> grads = reference::zeros_like(golden.parameters);
  outputs["grad.x"] = reference::moe_backward(grads, saved, golden.parameters, "", golden.config, golden.grad_output,
                                              golden.config.moe.balance_loss_weight)
                          .values;
  add_gradients(outputs, grads);
  add_routing(outputs, "", saved.router);
  check(golden, outputs, kBounds, saved.router.routing.capacity);
}

TEST(Golden, TheFolderHoldsFiles) {
  EXPECT_FALSE(golden_files().empty()) << "no *.safetensors in " << golden_folder();
}

class ReferenceGolden : public testing::TestWithParam<std::string> {};

TEST_P(ReferenceGolden, IsReproducedInDouble) {
  const GoldenCase golden(GetParam());
  if (!golden.unsupported.empty()) GTEST_SKIP() << golden.name() << " skipped: needs " << golden.unsupported;
  golden.decoder ? check_decoder(golden) : check_layer(golden);
}

INSTANTIATE_TEST_SUITE_P(Files, ReferenceGolden, testing::ValuesIn(golden_files()), test_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ReferenceGolden);

}  // namespace
}  // namespace mhmoe::golden
