#include "cuda/expert_products.h"

#include <cstdlib>
#include <string_view>

namespace mhmoe::cuda {
namespace {

constexpr double kOwnOperationsPerByte = 160;

// M rows, N columns, K terms, and the bytes that a sum moves, in units of those of an operand's element.
bool choose(const ops::RowGroups& groups, DType dtype, double m, double n, double k, double sum_bytes) {
  const char* variable = std::getenv("MHMOE_EXPERT_PRODUCTS");
  const std::string_view wish = variable == nullptr ? "auto" : variable;
  if (wish != "auto" && wish != "own_kernels" && wish != "strided_batches") {
    fail(ExitCode::kUsage, "MHMOE_EXPERT_PRODUCTS={}: allowed: auto, own_kernels, strided_batches", wish);
  }
  if (groups.capacity == 0) return false;
  if (wish != "auto") return wish == "strided_batches";
  if (dtype == DType::kF32) return true;  // our kernel for f32 is plain
  return 1 / (sum_bytes / k + 1 / n + 1 / m) > kOwnOperationsPerByte;
}

}  // namespace

// A bias is part of our own kernel; cuBLAS would leave it to another pass over the result.
bool runs_as_strided_batch(const ops::GroupedMatmul& args) {
  return args.bias.empty() && choose(args.groups, args.a.dtype, static_cast<double>(args.groups.capacity),
                                     static_cast<double>(args.out.cols()), static_cast<double>(args.a.cols()),
                                     args.out.dtype == args.a.dtype ? 1 : 2);
}

bool runs_as_strided_batch(const ops::GroupedWeightGrad& args) {
  return choose(args.groups, args.x.dtype, static_cast<double>(args.grad_out.cols()),
                static_cast<double>(args.x.cols()), static_cast<double>(args.groups.capacity), 4);
}

}  // namespace mhmoe::cuda
