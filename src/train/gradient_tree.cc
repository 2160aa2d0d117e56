#include "train/gradient_tree.h"

#include "ops/elementwise.h"

namespace mhmoe::train {

int64_t tree_levels(int64_t micro_batches) {
  int64_t levels = 1;
  for (int64_t done = 1; done < micro_batches; done *= 2) ++levels;
  return levels;
}

SumTree::SumTree(Context& ctx, const Tensor& first, int64_t micro_batches) : levels_{first} {
  for (int64_t level = 1; level < tree_levels(micro_batches); ++level) {
    levels_.push_back(ctx.state().allocate(kPartialSumsName, DType::kF32, {first.count()}));
    ctx.fill_zero(levels_.back());
  }
}

void SumTree::push(Context& ctx) {
  for (int64_t carry = count_++; (carry & 1) != 0; carry >>= 1) {
    const Tensor &left = levels_[depth_ - 1], &right = levels_[depth_];
    ops::add(ctx, {.out = left, .a = left, .b = right});
    --depth_;
  }
  ++depth_;
  if (depth_ < levels_.size()) ctx.fill_zero(levels_[depth_]);
}

const Tensor& SumTree::result() {
  MHMOE_CHECK(depth_ == 1, "a sum over {} micro-batches, which are no power of two", count_);
  depth_ = 0;
  count_ = 0;
  return levels_[0];
}

void sum_pairwise(Context& ctx, std::span<const Tensor> blocks) {
  for (size_t stride = 1; stride < blocks.size(); stride *= 2) {
    for (size_t i = 0; i + stride < blocks.size(); i += 2 * stride) {
      ops::add(ctx, {.out = blocks[i], .a = blocks[i], .b = blocks[i + stride]});
    }
  }
}

void reduce_scatter_tree(Context& ctx, Communicator& ranks, const Tensor& out, const Tensor& in) {
  const CommunicationScope scope(ctx);
  const Tensor received = ctx.step().allocate("gradient shards of all ranks", DType::kF32, {in.count()});
  ranks.wait(ranks.all_to_all(received, in, "gradients"));
  std::vector<Tensor> blocks;
  blocks.reserve(static_cast<size_t>(ranks.size()));
  for (int p = 0; p < ranks.size(); ++p) blocks.push_back(received.slice(p * out.count(), out.count()));
  sum_pairwise(ctx, blocks);
  ctx.copy(out, blocks[0]);
}

}  // namespace mhmoe::train
