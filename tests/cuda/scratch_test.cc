// What kernels take from the step arena for themselves is counted by a sizing pass over the same ops: every op with a
// kernel, at row counts on both sides of a chunk.
#include <algorithm>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

constexpr int64_t kRowCounts[] = {0, 1, 128, 129, 1000};

class Sizing : public test::EmulatedTest {
 protected:
  // Runs `op` on the emulated device and in a sizing pass; it takes its arguments from the context's step arena.
  // Returns the peak by names.
  template <class Op>
  auto expect_equal_peaks(Op&& op) {
    const Backend& backend = test::tested_backend();
    const auto real = backend.create_context(0), sizing = make_sizing_context(backend.kind, &backend.kernels);
    op(*real);
    op(*sizing);
    EXPECT_EQ(sizing->step().peak_bytes(), real->step().peak_bytes());
    EXPECT_EQ(sizing->step().used_bytes(), real->step().used_bytes());
    return sizing->step().peak_by_name();
  }
};

Tensor zeros(Context& ctx, DType dtype, std::initializer_list<int64_t> dims) {
  const Tensor tensor = ctx.step().allocate("argument", dtype, dims);
  ctx.fill_zero(tensor);
  return tensor;
}
Tensor f32(Context& ctx, std::initializer_list<int64_t> dims) {
  return zeros(ctx, DType::kF32, dims);
}

TEST_F(Sizing, KnowsWhatRmsNormTakes) {
  for (const int64_t rows : kRowCounts) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      const Tensor x = f32(ctx, {rows, 33}), y = f32(ctx, {rows, 33}), inv_rms = f32(ctx, {rows});
      const Tensor weight = f32(ctx, {33}), grad_weight = f32(ctx, {33});
      ops::rms_norm_forward(ctx, {y, inv_rms, x, weight, 1e-5f});
      ops::rms_norm_backward(ctx, {x, grad_weight, y, x, inv_rms, weight});
    });
    EXPECT_EQ(by_name.contains("rms_norm_grad_weight_partials"), rows > 0);
  }
}

TEST_F(Sizing, KnowsWhatAttentionBackwardTakes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      const auto rows = [&](int64_t cols) { return zeros(ctx, dtype, {10, cols}); };
      const Tensor log_sum_exp = f32(ctx, {2, 3, 5});
      ops::attention_backward(ctx, {rows(288), rows(96), rows(288), rows(96), log_sum_exp, {2, 5, 3, 32}});
    });
    EXPECT_TRUE(by_name.contains("attention_delta"));
  }
}

TEST_F(Sizing, KnowsWhatTheRouterTakes) {
  for (const int64_t rows : kRowCounts) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      const Tensor logits = f32(ctx, {rows, 7}), gates = f32(ctx, {rows, 2}), share = f32(ctx, {7});
      const Tensor index = zeros(ctx, DType::kI32, {rows, 2}), loss = f32(ctx, {1});
      ops::router_forward(ctx, {logits, index, gates, share, loss, logits, true, ops::BalanceCounts::kFirstChoice});
      ops::router_backward(ctx, {logits, gates, logits, index, share, true, 1});
    });
    EXPECT_TRUE(by_name.contains("router_tile_balance"));
  }
}

TEST_F(Sizing, KnowsWhatProductsTake) {
  for (const int64_t rows : kRowCounts) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      const Tensor a = zeros(ctx, DType::kBF16, {rows, 24}), b = zeros(ctx, DType::kBF16, {40, 24});
      const Tensor out = zeros(ctx, DType::kBF16, {rows, 40}), bias = f32(ctx, {40});
      ops::matmul(ctx, {.out = out, .a = a, .b = b, .transpose_b = true});
      ops::matmul(ctx, {.out = out, .a = a, .b = b, .transpose_b = true, .bias = bias});
      ops::bias_backward(ctx, {bias, out});
    });
    for (const char* name : {"cublas_workspace", "matmul_wide_rows"}) EXPECT_EQ(by_name.contains(name), rows > 0);
  }
}

TEST_F(Sizing, KnowsWhatBiasBackwardTakes) {
  for (const int64_t rows : kRowCounts) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      ops::bias_backward(ctx, {f32(ctx, {40}), f32(ctx, {rows, 40})});
    });
    EXPECT_EQ(by_name.contains("bias_backward_partials"), rows > 0);
  }
}

TEST_F(Sizing, KnowsWhatAssignSlotsTakes) {
  for (const int64_t rows : kRowCounts) {
    for (const int64_t capacity : {0, 3}) {
      const auto by_name = expect_equal_peaks([&](Context& ctx) {
        const auto i32 = [&](std::initializer_list<int64_t> dims) { return zeros(ctx, DType::kI32, dims); };
        ops::assign_slots(ctx, {.slot = i32({rows, 2}),
                                .row_of = i32({rows, 2}),
                                .row_assignment = i32({capacity > 0 ? 5 * capacity : rows * 2}),
                                .begin = i32({5}),
                                .rows = i32({5}),
                                .load = i32({5}),
                                .expert_index = i32({rows, 2}),
                                .capacity = capacity});
      });
      EXPECT_EQ(by_name.contains("assign_slots_counts"), rows > 0);
    }
  }
}

TEST_F(Sizing, KnowsWhatEmbeddingBackwardTakes) {
  for (const int64_t rows : kRowCounts) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      ops::embedding_backward(ctx, {f32(ctx, {9, 4}), f32(ctx, {rows, 4}), zeros(ctx, DType::kI32, {rows})});
    });
    EXPECT_TRUE(by_name.contains("embedding_backward_buckets"));
    EXPECT_EQ(by_name.contains("assign_slots_counts"), rows > 0);
  }
}

TEST_F(Sizing, KnowsWhatReduceTakes) {
  for (const int64_t rows : kRowCounts) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      ops::reduce(ctx, {.out = f32(ctx, {1}), .in = f32(ctx, {rows, 40})});
    });
    EXPECT_EQ(by_name.contains("reduce_partials"), rows > 0);
  }
}

TEST_F(Sizing, KnowsWhatTheExpertsProductsTake) {
  for (const int64_t capacity : {0, 64}) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      const auto i32 = [&](std::initializer_list<int64_t> dims) { return zeros(ctx, DType::kI32, dims); };
      const ops::RowGroups groups = {i32({2}), i32({2}), capacity};
      const Tensor x = f32(ctx, {128, 8}), out = f32(ctx, {128, 16}), weight = f32(ctx, {2, 16, 8});
      ops::grouped_matmul(ctx, {out, x, weight, groups, true});
      ops::grouped_weight_grad(ctx, {weight, out, x, groups});
      ops::grouped_bias_backward(ctx, {f32(ctx, {2, 16}), out, groups});
    });
    EXPECT_EQ(by_name.contains("cublas_workspace"), capacity > 0);
  }
}

// The table in src/cuda/expert_products.h: [E, n, k] of matrices of paper 2, and rows an expert.
TEST_F(Sizing, ShowsWhichOfTheExpertsProductsAreStridedBatches) {
  const Backend& backend = test::tested_backend();
  enum Kind { kUp, kDown, kGradient };
  const auto is_batch = [&](int64_t experts, int64_t n, int64_t k, int64_t capacity, Kind kind, DType dtype) {
    const auto ctx = make_sizing_context(backend.kind, &backend.kernels);
    const auto tensor = [&](DType type, std::initializer_list<int64_t> dims) {
      return ctx->step().allocate("argument", type, dims);
    };
    const ops::RowGroups groups = {tensor(DType::kI32, {experts}), tensor(DType::kI32, {experts}), capacity};
    const Tensor x = tensor(dtype, {experts * capacity, k}), out = tensor(dtype, {experts * capacity, n});
    const Tensor weight = tensor(kind == kGradient ? DType::kF32 : dtype, {experts, n, k});
    if (kind == kGradient) {
      ops::grouped_weight_grad(*ctx, {weight, out, x, groups});
    } else {
      const Tensor activated = kind == kUp ? tensor(dtype, {experts * capacity, n / 2}) : Tensor{};
      ops::grouped_matmul(*ctx, {out, x, weight, groups, true, {}, activated});
    }
    return ctx->step().peak_by_name().contains("cublas_workspace");
  };
  EXPECT_TRUE(is_batch(8, 4096, 768, 2048, kUp, DType::kBF16));
  EXPECT_TRUE(is_batch(8, 4096, 768, 2048, kGradient, DType::kBF16));
  EXPECT_FALSE(is_batch(40, 1536, 384, 1640, kUp, DType::kBF16));
  EXPECT_TRUE(is_batch(40, 384, 768, 1640, kDown, DType::kBF16));
  EXPECT_FALSE(is_batch(96, 1024, 256, 1536, kUp, DType::kBF16));
  EXPECT_FALSE(is_batch(96, 256, 512, 1536, kDown, DType::kBF16));
  EXPECT_FALSE(is_batch(96, 1024, 256, 1536, kGradient, DType::kBF16));
  EXPECT_TRUE(is_batch(96, 1024, 256, 1536, kGradient, DType::kF32));
}

TEST_F(Sizing, KnowsThatTheOtherOpsTakeNothing) {
  for (const int64_t rows : kRowCounts) {
    const auto by_name = expect_equal_peaks([&](Context& ctx) {
      const Tensor x = f32(ctx, {rows, 8}), bf16 = zeros(ctx, DType::kBF16, {rows, 8});
      const Tensor scalars = f32(ctx, {ops::kStepScalarCount}), one = f32(ctx, {1});
      const Tensor flat = f32(ctx, {rows}), copy = zeros(ctx, DType::kBF16, {rows});
      ops::rotary(ctx, {f32(ctx, {rows, 24}), std::max<int64_t>(rows, 1), 2, 1e4f});
      ops::cast(ctx, {.out = bf16, .in = x});
      ops::clip_scale(ctx, {scalars, one, one, 1});
      ops::adam_update(ctx, {flat, flat, flat, flat, scalars, copy, 0.9f, 0.99f, 1e-8f, 0.1f});
    });
    EXPECT_EQ(by_name.size(), 1u);
  }
}

}  // namespace
}  // namespace mhmoe
