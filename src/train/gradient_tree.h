// Gradients added up in a fixed binary tree over the numbers of the global batch's micro-batches, so that the sum has
// the same bits however many ranks compute it (parallel.width_invariant). Each rank has consecutive micro-batches, a
// power of two of them, and adds up their subtree; ranks are the tree's upper levels.
#pragma once

#include <span>
#include <vector>

#include "comm/groups.h"
#include "device/context.h"

namespace mhmoe::train {

// Names of what a width_invariant run allocates beside "gradients".
inline constexpr const char* kPartialSumsName = "gradients of parts of a batch";
inline constexpr const char* kOtherRanksName = "gradients of other ranks' rows";

// Partial sums that a rank holds at a time: log2 of its micro-batches, and one.
int64_t tree_levels(int64_t micro_batches);

// One rank's subtree, as a stack of partial sums: tree_levels() vectors of `first`'s length.
class SumTree {
 public:
  // first: f32 [n], where the lowest partial sum lies and the result will; the others come from the state arena.
  SumTree(Context& ctx, const Tensor& first, int64_t micro_batches);

  // Where the next micro-batch's gradient is to be accumulated; zero.
  const Tensor& top() const { return levels_[depth_]; }
  // It has been: adds up what is complete.
  void push(Context& ctx);
  // The sum of all, in `first`; the next micro-batch is a step's first.
  const Tensor& result();

 private:
  std::vector<Tensor> levels_;
  size_t depth_ = 0;
  int64_t count_ = 0;
};

// blocks[0] = the tree's sum of all blocks: (0 + 1) + (2 + 3), and so on. f32, equal counts, their number a power of
// two; the others are overwritten.
void sum_pairwise(Context& ctx, std::span<const Tensor> blocks);

// out: f32 [n / size] = the tree's sum over the ranks of their in[rank * n / size ...]. in: f32 [n].
void reduce_scatter_tree(Context& ctx, Communicator& ranks, const Tensor& out, const Tensor& in);

}  // namespace mhmoe::train
