#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

// out may be `in`.
void softmax(float* out, const float* in, int64_t n) {
  float largest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t e = 0; e < n; ++e) largest = in[e] > largest ? in[e] : largest;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t e = 0; e < n; ++e) {
    out[e] = fast_exp(in[e] - largest);
    sum += out[e];
  }
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) out[e] /= sum;
}

// The k largest in descending order. An entry moves only past smaller ones: of equals the lower index stays first, and
// not-a-number still leaves k different indices.
void select_largest(int32_t* index, float* value, int64_t k, const float* from, int64_t n) {
  for (int64_t e = 0; e < n; ++e) {
    int64_t place = std::min(e, k);
    if (place == k && !(from[e] > value[k - 1])) continue;
    if (place == k) --place;
    for (; place > 0 && from[e] > value[place - 1]; --place) {
      value[place] = value[place - 1];
      index[place] = index[place - 1];
    }
    value[place] = from[e];
    index[place] = static_cast<int32_t>(e);
  }
}

void normalize(float* gates, int64_t k) {
  float sum = 0;
  for (int64_t j = 0; j < k; ++j) sum += gates[j];
  for (int64_t j = 0; j < k; ++j) gates[j] /= sum;
}

// Sums over rows, one of each an expert.
struct Statistics {
  double *choices, *probability;
};

void forward_rows(const ops::RouterForward& args, const Statistics& sums, int64_t begin, int64_t end) {
  const int64_t experts = args.logits.cols(), k = args.expert_index.cols();
  const int64_t counted = args.counts == ops::BalanceCounts::kFirstChoice ? 1 : k;
  for (int64_t s = begin; s < end; ++s) {
    float* probabilities = args.probabilities.as<float>() + s * experts;
    int32_t* index = args.expert_index.as<int32_t>() + s * k;
    float* gates = args.gate_weight.as<float>() + s * k;
    softmax(probabilities, args.logits.as<float>() + s * experts, experts);
    select_largest(index, gates, k, probabilities, experts);
    if (args.normalize) normalize(gates, k);
    for (int64_t j = 0; j < counted; ++j) sums.choices[index[j]] += 1;
#pragma omp simd
    for (int64_t e = 0; e < experts; ++e) sums.probability[e] += static_cast<double>(probabilities[e]);
  }
}

struct BackwardRow {
  const ops::RouterBackward& args;
  const float* balance;  // [E], d balance_scale * balance_loss / d p[s, e], the same for every row
  float* scratch;        // [E], d loss / d p of the row

  void run(int64_t s) const {
    const int64_t experts = args.probabilities.cols(), k = args.expert_index.cols();
    const float* p = args.probabilities.as<float>() + s * experts;
    const int32_t* index = args.expert_index.as<int32_t>() + s * k;
    const float* grad_gate = args.grad_gate.as<float>() + s * k;
    float chosen = 1, mean = 0;
    if (args.normalize) {
      chosen = 0;
      for (int64_t j = 0; j < k; ++j) chosen += p[index[j]];
      for (int64_t j = 0; j < k; ++j) mean += grad_gate[j] * (p[index[j]] / chosen);
    }
    std::copy_n(balance, experts, scratch);
    for (int64_t j = 0; j < k; ++j) scratch[index[j]] += (grad_gate[j] - mean) / chosen;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t e = 0; e < experts; ++e) dot += p[e] * scratch[e];
    float* grad = args.grad_logits.as<float>() + s * experts;
#pragma omp simd
    for (int64_t e = 0; e < experts; ++e) grad[e] = p[e] * (scratch[e] - dot);
  }
};

}  // namespace

void router_forward(Context& /*ctx*/, const ops::RouterForward& args) {
  const int64_t rows = args.logits.rows(), experts = args.logits.cols();
  const RowChunks chunks(rows);
  thread_local std::vector<double> scratch;  // [chunks, 2, E]
  scratch.assign(static_cast<size_t>(chunks.count * 2 * experts), 0.0);
  double* sums = scratch.data();
  parallel_for(chunks.count, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t i = begin; i < end; ++i) {
      double* own = sums + i * 2 * experts;
      forward_rows(args, {own, own + experts}, chunks.begin(i), chunks.end(i));
    }
  });
  const int64_t counted = args.counts == ops::BalanceCounts::kFirstChoice ? 1 : args.expert_index.cols();
  const double all_rows = static_cast<double>(std::max<int64_t>(rows, 1));
  double loss = 0;
  for (int64_t e = 0; e < experts; ++e) {
    double choices = 0, probability = 0;
    for (int64_t i = 0; i < chunks.count; ++i) {
      choices += sums[i * 2 * experts + e];
      probability += sums[i * 2 * experts + experts + e];
    }
    const double share = choices / (all_rows * static_cast<double>(counted));
    args.share.as<float>()[e] = static_cast<float>(share);
    loss += static_cast<double>(experts) * share * (probability / all_rows);
  }
  args.balance_loss.as<float>()[0] = static_cast<float>(loss);
}

void router_backward(Context& /*ctx*/, const ops::RouterBackward& args) {
  const int64_t rows = args.probabilities.rows(), experts = args.probabilities.cols();
  thread_local std::vector<float> balance;
  balance.resize(static_cast<size_t>(experts));
  const float scale = args.balance_scale * static_cast<float>(experts) / static_cast<float>(rows);
  for (int64_t e = 0; e < experts; ++e) balance[e] = scale * args.share.as<float>()[e];
  const float* shared = balance.data();
  parallel_for(rows, row_grain(experts), [&](int64_t begin, int64_t end, int /*thread*/) {
    thread_local std::vector<float> scratch;
    scratch.resize(static_cast<size_t>(experts));
    const BackwardRow row{args, shared, scratch.data()};
    for (int64_t s = begin; s < end; ++s) row.run(s);
  });
}

}  // namespace mhmoe::cpu
