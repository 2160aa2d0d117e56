#include "ops/embedding.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::Twin;

class EmbeddingKernels : public test::EmulatedTest {
 protected:
  // Half of the rows have one token; of the others every token has few.
  Twin tokens(int64_t rows, int64_t vocabulary) {
    const Philox philox(5, "tokens");
    std::vector<double> ids;
    for (int64_t n = 0; n < rows; ++n) {
      const auto other = static_cast<int64_t>(philox.uniform(n) * static_cast<float>(vocabulary));
      ids.push_back(static_cast<double>(n % 2 == 0 ? vocabulary - 1 : other));
    }
    return given(DType::kI32, {rows}, ids);
  }
};

TEST_F(EmbeddingKernels, ForwardEqualsTheCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {1, 7, 8, 72, 2056}) {
      unalign(width == 72);
      const Twin table = random(dtype, {9, width}), ids = tokens(13, 9), out = garbage(DType::kF32, {13, width});
      ops::embedding_forward(cpu(), {out.cpu, table.cpu, ids.cpu});
      expect_same_bytes_in_every_order({out.emulated}, [&] {
        ops::embedding_forward(emulated(), {out.emulated, table.emulated, ids.emulated});
      });
      expect_agreement("out", out, 0, 0);
    }
  }
}

// Rows of a token around a batch of 16 and a stage of 64; vocabularies on both sides of the number of buckets; widths
// around a pack of 4 and a block's 256 columns. Equal to the last bit: the order of the sums is the contract's.
TEST_F(EmbeddingKernels, BackwardEqualsTheCpu) {
  for (const auto& [rows, vocabulary, width] : {std::array<int64_t, 3>{0, 3, 4},
                                                {1, 1, 1},
                                                {31, 2, 4},
                                                {34, 50, 7},
                                                {130, 4, 260},
                                                {300, 5000, 9},
                                                {600, 9000, 8}}) {
    for (const bool aligned : {true, false}) {
      if (!aligned && rows > 200) continue;
      unalign(!aligned);
      const Twin grad_out = random(DType::kF32, {rows, width}), ids = tokens(rows, vocabulary);
      const Twin grad_table = random(DType::kF32, {vocabulary, width});
      expect_same_bytes_in_every_order({grad_table.emulated}, [&] {
        refresh(grad_table);
        ops::embedding_backward(emulated(), {grad_table.emulated, grad_out.emulated, ids.emulated});
      });
      ops::embedding_backward(cpu(), {grad_table.cpu, grad_out.cpu, ids.cpu});
      expect_agreement(fmt::format("grad_table of {} rows", rows), grad_table, 0, 0);
    }
  }
}

}  // namespace
}  // namespace mhmoe
