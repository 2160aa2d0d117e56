// Experts shared out among ranks: every micro-batch has the bytes that it has where all experts are.
#include "nn/expert_ranks.h"

namespace mhmoe::nn_test {
namespace {

std::vector<ExpertCase> all_cases() {
  std::vector<ExpertCase> cases;
  const auto add = [&](const char* name, int64_t heads, const auto& change) {
    ExpertCase test{.name = name, .config = exchange_config(heads)};
    change(test);
    cases.push_back(std::move(test));
  };
  add("FixedCapacityWithDrops", 2, [](ExpertCase& test) { test.config.moe.capacity_factor = 0.75; });
  add("Dropless", 2, [](ExpertCase& test) { test.config.moe.capacity_factor.reset(); });
  add("BiasAndGelu", 3, [](ExpertCase& test) {
    test.config.ffn.bias = true;
    test.config.ffn.activation = ops::Activation::kGelu;
  });
  add("DroplessBiasAndRelu", 2, [](ExpertCase& test) {
    test.config.moe.capacity_factor.reset();
    test.config.ffn.bias = true;
    test.config.ffn.activation = ops::Activation::kRelu;
  });
  add("Bf16", 2, [](ExpertCase& test) { test.compute = DType::kBF16; });
  add("DroplessBf16", 2, [](ExpertCase& test) {
    test.config.moe.capacity_factor.reset();
    test.compute = DType::kBF16;
  });
  add("SharedExpertAndInnerResidual", 2, [](ExpertCase& test) {
    test.config.moe.shared_expert_hidden_size = 12;
    test.config.moe.residual = nn::MoeResidual::kInner;
    test.config.moe.router.normalize_top_k = true;
  });
  add("AllTokensToOneExpert", 1, [](ExpertCase& test) {
    test.config.moe.top_k = 1;
    test.favourite = 5;
  });
  add("DroplessAllTokensToOneExpert", 1, [](ExpertCase& test) {
    test.config.moe.top_k = 1;
    test.config.moe.capacity_factor.reset();
    test.favourite = 5;
  });
  add("DroplessMicroBatchesOfSeveralSizes", 2, [](ExpertCase& test) {
    test.config.moe.capacity_factor.reset();
    test.tokens = {14, 1, 40, 7};
  });
  return cases;
}

class ExpertExchange : public testing::TestWithParam<ExpertCase> {};

TEST_P(ExpertExchange, GivesTheBytesOfARankWithAllExperts) {
  const Tensors expected = run_alone(GetParam(), 4);
  EXPECT_EQ(expected.count("rank 3 grad.moe.gate_weight"), 1U);
  for (const int ranks : {2, 4}) {
    Tensors first_ranks = expected;
    std::erase_if(first_ranks, [&](const auto& item) {
      const std::string& name = item.first;
      return name.starts_with("rank ") ? name[5] - '0' >= ranks : name.back() - '0' >= ranks;
    });
    expect_same(run_shared(GetParam(), ranks), first_ranks, fmt::format("{} ranks", ranks));
  }
}

TEST_P(ExpertExchange, HasTheSameBytesInAnyNumberOfChunks) {
  const Tensors expected = run_shared(GetParam(), 2);
  for (const int chunks : {2, 3, 4, 64}) {
    const bool verify = chunks == 3;
    expect_same(run_shared(GetParam(), 2, {.overlap_chunks = chunks, .verify = verify}), expected,
                fmt::format("{} chunks", chunks));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ExpertExchange, testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mhmoe::nn_test
