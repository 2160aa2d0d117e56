// Buckets of any size give the same sums: every rank runs every test.
#include <gtest/gtest.h>

#include "comm/job.h"
#include "train/fixtures.h"
#include "train/global_state.h"

namespace mhmoe::train {
namespace {

// The sum of the gradients of `micro_batches` on every rank, whole on rank 0.
std::vector<float> sum_with(int64_t bucket_elements, bool width_invariant, size_t& buckets) {
  constexpr int64_t kMicroBatches = 2, kParameters = 12;
  Job& job = comm::job();
  const auto ctx = cpu::backend().create_context(0);
  const comm::ParallelGroups groups =
      comm::make_groups(cpu::backend(), *ctx, job, comm::make_layout(job.size(), job.rank(), 0, 0));
  nn::ParameterStore parameters;
  for (int i = 0; i < kParameters; ++i) {
    parameters.add(nn::ParameterKind::kMatrix, fmt::format("matrix {}", i), {7 + i, 33}, nn::Init::zeros());
  }
  parameters.allocate(*ctx, DType::kF32, true,
                      {.everywhere = {.shards = job.size(), .index = job.rank()},
                       .with_experts = {.shards = job.size(), .index = job.rank()},
                       .bucket_elements = bucket_elements});
  buckets = parameters.buckets().size();
  Gradients gradients(*ctx, parameters, groups, kMicroBatches, width_invariant);
  for (int64_t i = 0; i < kMicroBatches; ++i) {
    if (i + 1 == kMicroBatches) gradients.begin_last();
    for (const nn::Parameter& parameter : parameters.all()) {
      const Philox random(static_cast<uint64_t>(job.rank() * kMicroBatches + i), parameter.parts[0].name);
      const Tensor gradient = gradients.gradient_of(parameter);
      for (int64_t k = 0; k < gradient.count(); ++k) gradient.as<float>()[k] += random.normal(static_cast<uint64_t>(k));
    }
    gradients.end_micro_batch();
  }
  gradients.finish();
  std::vector<float> owned;
  for (const nn::Bucket& bucket : parameters.buckets()) {
    const std::vector<float> part = to_host(*ctx, bucket.owned_gradient());
    owned.insert(owned.end(), part.begin(), part.end());
  }
  return gather_global(job, parameters, owned);
}

TEST(Buckets, OfAnySizeGiveTheSameSums) {
  for (const bool width_invariant : {true, false}) {
    size_t many = 0, one = 0;
    const std::vector<float> small = sum_with(64, width_invariant, many), whole = sum_with(0, width_invariant, one);
    EXPECT_EQ(many, 12u);
    EXPECT_EQ(one, 1u);
    ASSERT_EQ(small.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i) {
      if (width_invariant) {
        ASSERT_EQ(small[i], whole[i]) << i;
      } else {
        ASSERT_NEAR(small[i], whole[i], 1e-5) << i;
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe::train
