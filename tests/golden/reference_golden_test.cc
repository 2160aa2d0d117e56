// The oracle in double against the golden vectors of every file of the folder.
#include "golden/golden_check.h"

namespace mhmoe::golden {
namespace {

constexpr Bounds kDoublePrecision = {.absolute = 1e-11};

void check_decoder(const GoldenCase& golden) {
  const reference::Forward<double> run = reference::forward(golden.config, golden.parameters, golden.batch);
  Outputs outputs = reference::forward_outputs(golden.config, run);
  add_gradients(outputs, reference::backward(golden.config, golden.parameters, golden.batch, run));
  const auto rows = static_cast<int64_t>(golden.batch.tokens.size()) * golden.config.moe.heads;
  check(golden, outputs, kDoublePrecision, reference::capacity_of(golden.config.moe, rows));
  EXPECT_NEAR(run.loss, captured(golden, "objective_value", "^(.*)$"),
              (golden.as_released ? kReleasedBound : 1e-11) * run.loss);
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
  check(golden, outputs, kDoublePrecision, saved.router.routing.capacity);
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

}  // namespace
}  // namespace mhmoe::golden
