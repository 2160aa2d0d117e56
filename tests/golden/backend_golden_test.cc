// The program's model and MoE layer, in fp32 on the CPU backend, against the golden vectors of every file of the
// folder.
#include "golden/golden_check.h"
#include "nn/judged_model.h"

namespace mhmoe::golden {
namespace {

class BackendGolden : public testing::TestWithParam<std::string> {};

TEST_P(BackendGolden, IsReproducedInSinglePrecision) {
  const GoldenCase golden(GetParam());
  if (!golden.unsupported.empty()) GTEST_SKIP() << golden.name() << " skipped: needs " << golden.unsupported;
  const Outputs outputs = golden.decoder
                              ? nn_test::run_model(golden.config, golden.parameters, std::span(&golden.batch, 1))
                              : nn_test::run_moe_layer(golden.config, golden.parameters, golden.x, golden.grad_output);
  const auto tokens = golden.decoder ? static_cast<int64_t>(golden.batch.tokens.size()) : golden.x.rows;
  const nn::MoeConfig& moe = golden.config.moe;
  check(golden, outputs, reference::kSinglePrecision,
        nn::expert_capacity(moe, moe.capacity_factor, tokens * moe.heads));
}

INSTANTIATE_TEST_SUITE_P(Files, BackendGolden, testing::ValuesIn(golden_files()), test_name);

}  // namespace
}  // namespace mhmoe::golden
