#include <type_traits>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {

void assign_slots(Context& /*ctx*/, const ops::AssignSlots& args) {
  const int64_t rows = args.expert_index.rows(), k = args.expert_index.cols(), experts = args.load.count();
  const int32_t* expert = args.expert_index.as<int32_t>();
  int32_t *slot = args.slot.as<int32_t>(), *load = args.load.as<int32_t>(), *begin = args.begin.as<int32_t>();
  std::fill_n(load, experts, 0);
  for (int64_t j = 0; j < k; ++j) {
    for (int64_t a = j; a < rows * k; a += k) slot[a] = load[expert[a]]++;
  }
  const bool bounded = args.capacity > 0;
  int32_t next = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int32_t used = bounded ? static_cast<int32_t>(std::min<int64_t>(load[e], args.capacity)) : load[e];
    args.rows.as<int32_t>()[e] = used;
    begin[e] = bounded ? static_cast<int32_t>(e * args.capacity) : next;
    next += used;
  }
  int32_t *row_of = args.row_of.as<int32_t>(), *row_assignment = args.row_assignment.as<int32_t>();
  std::fill_n(row_assignment, args.row_assignment.count(), -1);
  for (int64_t a = 0; a < rows * k; ++a) {
    const bool kept = !bounded || slot[a] < args.capacity;
    row_of[a] = kept ? begin[expert[a]] + slot[a] : -1;
    if (kept) row_assignment[row_of[a]] = static_cast<int32_t>(a);
  }
}

namespace {

template <class To, class From>
void gather(const ops::GatherRows& args) {
  const int64_t width = args.x.cols();
  const int32_t* row_assignment = args.row_assignment.as<int32_t>();
  const From* x = args.x.as<From>();
  To* out = args.out.as<To>();
  parallel_for(args.out.rows(), row_grain(width), [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t r = begin; r < end; ++r) {
      const int32_t assignment = row_assignment[r];
      if (assignment < 0) {
        std::fill_n(out + r * width, width, To{});
        continue;
      }
      const From* from = x + assignment / args.k * width;
      if constexpr (std::is_same_v<To, From>) {
        std::copy_n(from, width, out + r * width);
      } else {
        store_row(out + r * width, from, width);
      }
    }
  });
}

// Columns summed at a time, so that the sums stay in the first-level cache whatever the width.
constexpr int64_t kBlock = 256;

// Columns [first, first + n) of row s of y.
template <class Y, class Row>
void combine_block(const ops::CombineRows& args, int64_t s, int64_t first, int64_t n) {
  const int64_t width = args.y.cols(), k = args.row_of.cols();
  const int32_t* row_of = args.row_of.as<int32_t>() + s * k;
  float sum[kBlock];
  bool started = !args.addend.empty();
  if (started) {
    dispatch_float(args.addend.dtype,
                   [&](auto zero) { load_row(sum, args.addend.as<decltype(zero)>() + s * width + first, n); });
  }
  for (int64_t j = 0; j < k; ++j) {
    if (row_of[j] < 0) continue;
    const Row* row = args.rows.as<Row>() + row_of[j] * width + first;
    const float gate = args.gate.empty() ? 1.0f : args.gate.as<float>()[s * k + j];
    if (started) {  // NOLINT(bugprone-branch-clone): one adds, the other assigns
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) sum[c] += gate * static_cast<float>(row[c]);
    } else {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) sum[c] = gate * static_cast<float>(row[c]);
    }
    started = true;
  }
  if (!started) std::fill_n(sum, n, 0.0f);
  store_row(args.y.as<Y>() + s * width + first, sum, n);
}

}  // namespace

void gather_rows(Context& /*ctx*/, const ops::GatherRows& args) {
  if (args.x.dtype == DType::kBF16) return gather<bfloat16, bfloat16>(args);
  dispatch_float(args.out.dtype, [&](auto zero) { gather<decltype(zero), float>(args); });
}

void combine_rows(Context& /*ctx*/, const ops::CombineRows& args) {
  const int64_t width = args.y.cols();
  dispatch_float(args.y.dtype, [&](auto y_zero) {
    dispatch_float(args.rows.dtype, [&](auto row_zero) {
      parallel_for(args.y.rows(), row_grain(width), [&](int64_t begin, int64_t end, int /*thread*/) {
        for (int64_t s = begin; s < end; ++s) {
          for (int64_t first = 0; first < width; first += kBlock) {
            combine_block<decltype(y_zero), decltype(row_zero)>(args, s, first, std::min(kBlock, width - first));
          }
        }
      });
    });
  });
}

}  // namespace mhmoe::cpu
