#include "train/product_check.h"

#include <algorithm>
#include <set>

#include "core/hash.h"
#include "core/parallel_for.h"
#include "core/philox.h"

namespace mhmoe::train {
namespace {

std::string transposed(const Tensor& matrix, bool transpose) {
  return matrix.describe() + (transpose ? "^T" : "");
}

std::string name_of(const ops::Matmul& args) {
  return fmt::format("matmul {} = {} x {}{}{}", args.out.describe(), transposed(args.a, args.transpose_a),
                     transposed(args.b, args.transpose_b), args.bias.empty() ? "" : " + bias",
                     args.addend.empty() ? "" : " + addend");
}
std::string attention_name(std::string_view op, const ops::AttentionShape& shape, const Tensor& qkv) {
  return fmt::format("{} of {} x {} tokens, {} heads, {}", op, shape.batch, shape.sequence_length, shape.heads,
                     qkv.describe());
}
std::string name_of(const ops::AttentionForward& args) {
  return attention_name("attention_forward", args.shape, args.qkv);
}
std::string name_of(const ops::AttentionBackward& args) {
  return attention_name("attention_backward", args.shape, args.qkv);
}
// One expert's; how many experts and rows a call has differs between layouts.
std::string name_of(const ops::GroupedMatmul& args) {
  return fmt::format("grouped_matmul {}[rows, {}] = {}[rows, {}] x {}{}", to_string(args.out.dtype), args.out.cols(),
                     to_string(args.a.dtype), args.a.cols(), transposed(args.weight.select(0), args.transpose_weight),
                     args.bias.empty() ? "" : " + bias");
}
std::string name_of(const ops::GroupedWeightGrad& args) {
  return fmt::format("grouped_weight_grad {} += {}[rows, {}]^T x {}[rows, {}]", args.grad_weight.select(0).describe(),
                     to_string(args.grad_out.dtype), args.grad_out.cols(), to_string(args.x.dtype), args.x.cols());
}

// Random numbers of a prime period, so that they line up with no matrix: drawn anew, they would cost more than
// products.
class Noise {
 public:
  Noise() {
    const Philox random(0, "product check");
    for (size_t i = 0; i < kPeriod; ++i) {
      values_.push_back(random.uniform(i) - 0.5F);
      halves_.emplace_back(values_.back());
    }
  }

  Tensor make(Context& ctx, const Tensor& like) const {
    const Tensor tensor = ctx.step().allocate("product check", like.dtype, {like.count()});
    Tensor shaped = like;
    shaped.data = tensor.data;
    fill(shaped);
    return shaped;
  }
  void fill(const Tensor& tensor) const {
    if (tensor.dtype == DType::kF32) return repeat(tensor.as<float>(), values_, tensor.count());
    repeat(tensor.as<bfloat16>(), halves_, tensor.count());
  }

 private:
  static constexpr size_t kPeriod = 65521;

  template <class T>
  static void repeat(T* to, const std::vector<T>& period, int64_t count) {
    for (int64_t done = 0; done < count; done += kPeriod) {
      std::copy_n(period.begin(), std::min<int64_t>(kPeriod, count - done), to + done);
    }
  }

  std::vector<float> values_;
  std::vector<bfloat16> halves_;
};

uint64_t hash_of(const Tensor& tensor) {
  return xxh3(tensor.data, tensor.bytes());
}

class Check {
 public:
  explicit Check(Context& ctx) : ctx_(ctx) {}

  // The hash of what the product gives.
  uint64_t run(const std::string& name, ops::Matmul args) const {
    for (Tensor* tensor : {&args.out, &args.a, &args.b, &args.bias}) instantiate(*tensor);
    if (!args.addend.empty()) args.addend = args.out;
    return compare_threads(name, args.out, [&] { ops::matmul(ctx_, args); });
  }
  uint64_t run(const std::string& name, ops::AttentionForward args) const {
    instantiate_one_sequence(args.shape, {&args.out, &args.log_sum_exp, &args.qkv});
    return compare_threads(name, args.out, [&] { ops::attention_forward(ctx_, args); });
  }
  uint64_t run(const std::string& name, ops::AttentionBackward args) const {
    instantiate_one_sequence(args.shape, {&args.grad_qkv, &args.grad_out, &args.qkv, &args.out, &args.log_sum_exp});
    return compare_threads(name, args.grad_qkv, [&] { ops::attention_backward(ctx_, args); });
  }
  uint64_t run(const std::string& name, ops::GroupedMatmul args) const {
    args.activated = {};
    for (Tensor* tensor : {&args.out, &args.a, &args.weight, &args.bias}) instantiate(*tensor);
    const Groups groups = uneven(args.a.rows(), args.weight.dims[0]);
    args.groups = groups.tensors;
    ops::grouped_matmul(ctx_, args);
    compare_alone(name, groups, [&](int64_t e, int64_t begin, int64_t rows) {
      ops::GroupedMatmul alone = args;
      alone.a = moved(args.a.slice_rows(begin, rows));
      alone.out = noise_.make(ctx_, Tensor(nullptr, args.out.dtype, {rows + 1, args.out.cols()}, ctx_.kind()));
      alone.weight = expert(args.weight, e);
      if (!args.bias.empty()) alone.bias = expert(args.bias, e);
      alone.groups = only(rows);
      const Tensor result = alone.out.slice_rows(1, rows);
      const uint64_t hash = compare_threads(name, result, [&] { ops::grouped_matmul(ctx_, alone); });
      return hash == hash_of(args.out.slice_rows(begin, rows));
    });
    return hash_of(args.out);
  }
  uint64_t run(const std::string& name, ops::GroupedWeightGrad args) const {
    for (Tensor* tensor : {&args.grad_weight, &args.grad_out, &args.x}) instantiate(*tensor);
    const Groups groups = uneven(args.x.rows(), args.grad_weight.dims[0]);
    args.groups = groups.tensors;
    ctx_.fill_zero(args.grad_weight);
    ops::grouped_weight_grad(ctx_, args);
    compare_alone(name, groups, [&](int64_t e, int64_t begin, int64_t rows) {
      ops::GroupedWeightGrad alone = args;
      alone.x = moved(args.x.slice_rows(begin, rows));
      alone.grad_out = moved(args.grad_out.slice_rows(begin, rows));
      alone.grad_weight = noise_.make(ctx_, expert(args.grad_weight, e));
      alone.groups = only(rows);
      const uint64_t hash = compare_threads(name, alone.grad_weight, [&] {
        ctx_.fill_zero(alone.grad_weight);
        ops::grouped_weight_grad(ctx_, alone);
      });
      return hash == hash_of(expert(args.grad_weight, e));
    });
    return hash_of(args.grad_weight);
  }

 private:
  struct Groups {
    std::vector<int32_t> begin, rows;
    ops::RowGroups tensors;
  };

  // Sequences of a batch do not meet; with one head they are what threads share, so then all are kept.
  void instantiate_one_sequence(ops::AttentionShape& shape, std::initializer_list<Tensor*> tensors) const {
    const int64_t parts = shape.heads == 1 ? 1 : shape.batch;
    for (Tensor* tensor : tensors) {
      tensor->dims[0] /= parts;
      instantiate(*tensor);
    }
    shape.batch /= parts;
  }
  void instantiate(Tensor& shape) const {
    if (!shape.empty()) shape = noise_.make(ctx_, shape);
  }

  template <class Compute>
  uint64_t compare_threads(const std::string& name, const Tensor& out, Compute&& compute) const {
    const auto result = [&](int threads) {
      const ThreadCount count(threads);
      noise_.fill(out);  // it may be accumulated onto
      compute();
      return hash_of(out);
    };
    const int threads = thread_count();
    const uint64_t hash = result(threads);
    if (threads > 1 && hash != result(1)) {
      fail(ExitCode::kConfig,
           "parallel.width_invariant: {} gives other bits with {} threads than with 1, so that results would depend on "
           "the layout; give every rank one thread (--threads 1), or set parallel.width_invariant to false",
           name, threads);
    }
    return hash;
  }

  // same_alone(e, begin, rows) computes expert e's rows without the others': whether that gives the same bits. It is
  // asked about the first expert, one in the middle, and the last.
  template <class SameAlone>
  void compare_alone(const std::string& name, const Groups& groups, SameAlone&& same_alone) const {
    const size_t experts = groups.rows.size();
    for (const size_t e : std::set<size_t>{0, experts / 2, experts - 1}) {
      const ArenaScope scope(ctx_.step());
      if (same_alone(static_cast<int64_t>(e), groups.begin[e], groups.rows[e])) continue;
      fail(ExitCode::kConfig,
           "parallel.width_invariant: {} gives an expert's rows other bits alone than among those of other experts, so "
           "that results would depend on the layout; set parallel.width_invariant to false, or use another CPU or "
           "version of oneDNN",
           name);
    }
  }

  // About 1 : 2 : 3 ... of the rows.
  Groups uneven(int64_t rows, int64_t experts) const {
    Groups groups;
    const int64_t parts = experts * (experts + 1) / 2;
    int64_t done = 0;
    for (int64_t e = 0, part = 0; e < experts; ++e) {
      part += e + 1;
      const int64_t end = rows * part / parts;
      groups.begin.push_back(static_cast<int32_t>(done));
      groups.rows.push_back(static_cast<int32_t>(end - done));
      done = end;
    }
    groups.tensors = on_device(groups.begin, groups.rows);
    return groups;
  }
  ops::RowGroups only(int64_t rows) const { return on_device({1}, {static_cast<int32_t>(rows)}); }
  ops::RowGroups on_device(const std::vector<int32_t>& begin, const std::vector<int32_t>& rows) const {
    const auto experts = static_cast<int64_t>(begin.size());
    const ops::RowGroups groups = {.begin = ctx_.step().allocate("product check", DType::kI32, {experts}),
                                   .rows = ctx_.step().allocate("product check", DType::kI32, {experts})};
    ctx_.upload(groups.begin, begin.data());
    ctx_.upload(groups.rows, rows.data());
    return groups;
  }

  static Tensor expert(const Tensor& stack, int64_t e) {
    Tensor one = stack;
    one.data = stack.select(e).data;
    one.dims[0] = 1;
    return one;
  }
  // The rows behind one other.
  Tensor moved(const Tensor& rows) const {
    const Tensor buffer = noise_.make(ctx_, Tensor(nullptr, rows.dtype, {rows.rows() + 1, rows.cols()}, ctx_.kind()));
    ctx_.copy(buffer.slice_rows(1, rows.rows()), rows);
    return buffer;
  }

  Context& ctx_;
  Noise noise_;
};

}  // namespace

void ProductShapes::begin(const ops::OpCall& call) {
  std::visit(
      [&](const auto* args) {
        using Args = std::remove_cvref_t<decltype(*args)>;
        if constexpr (std::is_constructible_v<Product, std::in_place_type_t<Args>, Args>) {
          products_.try_emplace(name_of(*args), *args);
        }
      },
      call.arguments);
}

std::vector<Compared> check_products(Context& ctx, const ProductShapes& shapes) {
  const Check check(ctx);
  std::vector<Compared> results;
  for (const auto& [name, product] : shapes.all()) {
    const ArenaScope scope(ctx.step());
    const uint64_t hash = std::visit([&, &name = name](const auto& args) { return check.run(name, args); }, product);
    results.push_back({"what this CPU makes of " + name + " (parallel.width_invariant)", to_hex(hash)});
  }
  return results;
}

}  // namespace mhmoe::train
