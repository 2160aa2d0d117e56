#include "cuda/expert_products.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace mhmoe::cuda {
namespace {

// Multiply-adds in the time in which an element of bf16 is moved.
constexpr double kOwnRate = 160, kCublasRate = 295;

// An expert's product: its multiply-adds, the elements that it moves, and those that its activation adds, done by the
// same kernel or by one that reads the result again.
struct Costs {
  double operations, moved, activation_within = 0, activation_after = 0;
};

bool choose(const ops::RowGroups& groups, DType dtype, const Costs& costs) {
  const char* variable = std::getenv("MHMOE_EXPERT_PRODUCTS");
  const std::string_view wish = variable == nullptr ? "auto" : variable;
  if (wish != "auto" && wish != "own_kernels" && wish != "strided_batches") {
    fail(ExitCode::kUsage, "MHMOE_EXPERT_PRODUCTS={}: allowed: auto, own_kernels, strided_batches", wish);
  }
  if (groups.capacity == 0) return false;
  if (wish != "auto") return wish == "strided_batches";
  if (dtype == DType::kF32) return true;  // our kernel for f32 is plain
  const double own = std::max(costs.operations / kOwnRate, costs.moved + costs.activation_within);
  return std::max(costs.operations / kCublasRate, costs.moved) + costs.activation_after < own;
}

}  // namespace

bool runs_as_strided_batch(const ops::GroupedMatmul& args) {
  if (!args.bias.empty()) return false;  // a part of our kernels; cuBLAS would leave it to another pass over the result
  const auto m = static_cast<double>(args.groups.capacity);
  const auto n = static_cast<double>(args.out.cols()), k = static_cast<double>(args.a.cols());
  Costs costs = {.operations = m * n * k, .moved = m * k + n * k + m * n * (args.out.dtype == args.a.dtype ? 1 : 2)};
  if (!args.activated.empty() && args.activation == ops::Activation::kSwiglu) {
    costs.activation_within = m * n / 2;
    costs.activation_after = m * n + m * n / 2;
  }
  return choose(args.groups, args.a.dtype, costs);
}

bool runs_as_strided_batch(const ops::GroupedWeightGrad& args) {
  const auto m = static_cast<double>(args.grad_out.cols()), n = static_cast<double>(args.x.cols());
  const auto k = static_cast<double>(args.groups.capacity);
  constexpr int kReadAndWritten = 4;  // f32
  return choose(args.groups, args.x.dtype, {.operations = m * n * k, .moved = m * k + n * k + m * n * kReadAndWritten});
}

}  // namespace mhmoe::cuda
