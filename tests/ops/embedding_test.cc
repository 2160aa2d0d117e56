#include "ops/embedding.h"

#include "ops/op_test.h"

namespace mhmoe {
namespace {

using Embedding = test::OpTest;

TEST_F(Embedding, ForwardCopiesTheRowsOfTheTokens) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {1, 7, 64}) {
      const Tensor table = random(dtype, {5, width});
      const Tensor tokens = given(DType::kI32, {2, 3}, {4, 0, 0, 2, 4, 1});
      const Tensor out = garbage(DType::kF32, {6, width});
      ops::embedding_forward(ctx(), {out, table, tokens});
      for (int64_t n = 0; n < 6; ++n) {
        const Tensor row = table.slice_rows(test::host<int32_t>(tokens)[n], 1);
        test::expect_equal("row", out.slice_rows(n, 1), test::values(row));
      }
    }
  }
}

TEST_F(Embedding, BackwardAddsRowsOfEqualTokenInOrderAtAnyNumberOfThreads) {
  const int64_t rows = 300, width = 83, vocabulary = 7;
  std::vector<double> tokens(rows);
  for (int64_t n = 0; n < rows; ++n) tokens[n] = static_cast<double>(n * n % 5);  // tokens 2, 3, 5 and 6 never occur
  const Tensor token_ids = given(DType::kI32, {rows}, tokens);
  const Tensor grad_out = random(DType::kF32, {rows, width});
  const Tensor before = random(DType::kF32, {vocabulary, width});

  const Tensor expected = copy_of(before);
  for (int64_t n = 0; n < rows; ++n) {
    auto* to = test::host<float>(expected.slice_rows(static_cast<int64_t>(tokens[n]), 1));
    for (int64_t c = 0; c < width; ++c) to[c] += test::host<float>(grad_out.slice_rows(n, 1))[c];
  }
  for (const int threads : {1, 2, 5}) {
    const ThreadCount with(threads);
    const Tensor grad_table = copy_of(before);
    ops::embedding_backward(ctx(), {grad_table, grad_out, token_ids});
    test::expect_equal("grad_table", grad_table, test::values(expected));
  }
}

TEST_F(Embedding, NoRowsTouchNothing) {
  const Tensor table = random(DType::kF32, {3, 4});
  const Tensor grad_table = copy_of(table);
  const Tensor tokens = zeros(DType::kI32, {0}), rows = zeros(DType::kF32, {0, 4});
  ops::embedding_forward(ctx(), {rows, table, tokens});
  ops::embedding_backward(ctx(), {grad_table, rows, tokens});
  test::expect_equal("grad_table", grad_table, test::values(table));
}

}  // namespace
}  // namespace mhmoe
