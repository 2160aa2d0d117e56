// How the experts' products run where rows have a capacity: the one place where this is chosen. Without a capacity only
// our own kernels can run them, which learn on the device how many rows each expert has.
//
// Strided batches of cuBLAS always multiply all E * capacity rows, but on Hopper by instructions of four warps that
// reach about twice the rate of mma.sync, on which our kernels are built. That pays where arithmetic is the bound.
// Counting every operand once, a product of M rows, N columns and K terms does 1 / (1/K + 1/N + 1/M) operations a byte
// of bf16; a weight gradient, whose M x N sums are read and written as f32, 1 / (4/K + 1/N + 1/M). In the time of a
// byte an H100 does about 300 operations, with mma.sync hardly more than 160. MH-MoE makes M, the rows of an expert,
// large and K small:
//
//   operations a byte, micro-batches of 16,384 tokens     M   up N, K        up   down   gradient of up, of down
//   paper 2, SMoE, 8 experts                          2,048   4,096,  768   492    439   286   267
//   paper 2, MH-MoE, 2 heads, 40 experts              1,640   1,536,  384   259    221   176   158
//   paper 2, MH-MoE, 3 heads, 96 experts              1,536   1,024,  256   181    154   134   118
//   paper 1, MH-MoE, 4 heads, 32 experts              4,096  12,288,  192   181    181   160   160
//
// So with more heads products come to wait for memory, where faster arithmetic gains nothing and empty rows cost. Our
// kernel makes SwiGLU with the up-projection, for which a batch leaves its result to be read again: then only the
// up-projection of SMoE is better off as a batch.
// Reasoned, not measured: a first run on a GPU should compare both (MHMOE_EXPERT_PRODUCTS).
#pragma once

#include "ops/grouped_matmul.h"

namespace mhmoe::cuda {

// Whether a product runs as a strided batch; else by our own kernel. The environment variable MHMOE_EXPERT_PRODUCTS
// overrides the choice where there is one: auto (default), own_kernels, strided_batches.
bool runs_as_strided_batch(const ops::GroupedMatmul& args);
bool runs_as_strided_batch(const ops::GroupedWeightGrad& args);

}  // namespace mhmoe::cuda
