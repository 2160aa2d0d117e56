#include "ops/sentinels.h"

#include <gtest/gtest-spi.h>

#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

TEST(SentinelsTest, SeeWritesBeforeAndBehindATensorOfAnyShapeAndShift) {
  static const auto ctx = backend_under_test().create_context(0);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
    for (const int64_t count : {0, 1, 3, 64}) {
      for (const int64_t shift : {0, 1}) {
        static Sentinels sentinels;
        sentinels = {};
        const Tensor tensor = sentinels.allocate(*ctx, dtype, {count}, shift);
        ctx->fill_zero(tensor);
        sentinels.check(*ctx);
        const auto size = static_cast<int64_t>(size_of(dtype));
        const Tensor around(static_cast<std::byte*>(tensor.data) - size, dtype, {count + 2}, tensor.device);
        std::vector<uint8_t> kept(around.bytes());
        ctx->download(kept.data(), around);
        ctx->fill_zero(around.slice(0, 1));
        EXPECT_NONFATAL_FAILURE(sentinels.check(*ctx), "before its begin");
        ctx->upload(around, kept.data());
        ctx->fill_zero(around.slice(count + 1, 1));
        EXPECT_NONFATAL_FAILURE(sentinels.check(*ctx), "behind its end");
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe::test
