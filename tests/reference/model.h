// The oracle's decoder: embedding, pre-norm blocks, final norm, logits, cross-entropy; and its whole backward pass.
#pragma once

#include "reference/attention.h"
#include "reference/moe.h"

namespace mhmoe::reference {

struct Batch {
  int64_t length = 0;                    // of every sequence
  std::vector<int64_t> tokens, targets;  // [sequences * length]; target -1: not counted

  int64_t counted() const {
    int64_t count = 0;
    for (const int64_t target : targets) count += target >= 0;
    return count;
  }
};

// loss = sum of the counted targets' cross-entropy / denominator
//        + balance_loss_weight * balance_scale * sum of the layers' balance losses.
struct LossOptions {
  double denominator = 0;  // 0: the batch's counted targets
  double balance_scale = 1;
};

template <class T>
struct BlockSaved {
  Matrix<T> x, middle, output;  // [tokens, d], residual stream: before, between and behind the two halves
  AttentionSaved<T> attention;
  FeedForwardSaved<T> ffn;  // in a dense block
  MoeSaved<T> moe;          // in an MoE block
};

template <class T>
struct Forward {
  std::vector<BlockSaved<T>> blocks;
  Matrix<T> normed, logits;
  T cross_entropy = T(0);  // sum / denominator
  T loss = T(0);
  double denominator = 1;

  // One entry a layer; those of dense layers are empty.
  std::vector<Routing> routing() const {
    std::vector<Routing> result;
    for (const BlockSaved<T>& block : blocks) result.push_back(block.moe.router.routing);
    return result;
  }
};

inline std::string layer_name(int64_t layer) {
  return "layers." + std::to_string(layer) + ".";
}

inline std::string output_name(const nn::ModelConfig& config) {
  return config.tie_embeddings ? "embed" : "lm_head";
}

template <class T>
Matrix<T> block(BlockSaved<T>& saved, const Parameters<T>& parameters, int64_t layer, const nn::ModelConfig& config,
                const Matrix<T>& x, int64_t length, const Routing* fixed_routing) {
  const std::string name = layer_name(layer);
  saved.x = x;
  saved.middle = x;
  saved.middle.add(attention(saved.attention, parameters, name + "attention", config,
                             rms_norm(parameters, name + "attention_norm", x, config.norm_eps), length));
  saved.output = saved.middle;
  const Matrix<T> normed = rms_norm(parameters, name + "ffn_norm", saved.middle, config.norm_eps);
  if (config.is_moe_layer(layer)) {
    saved.output.add(moe(saved.moe, parameters, name + "moe.", config, normed, fixed_routing));
  } else {
    saved.output.add(feed_forward(saved.ffn, parameters, name + "ffn", config.ffn.activation, normed));
  }
  return saved.output;
}

// Sum over counted targets of -log softmax(logits)[target].
template <class T>
T cross_entropy_sum(const Matrix<T>& logits, const std::vector<int64_t>& targets) {
  Sum<T> sum = 0;
  for (int64_t r = 0; r < logits.rows; ++r) {
    const int64_t target = targets[static_cast<size_t>(r)];
    if (target < 0) continue;
    double largest = real_part(logits[r][0]);
    for (int64_t c = 1; c < logits.cols; ++c) largest = std::max(largest, real_part(logits[r][c]));
    Sum<T> total = 0;
    for (int64_t c = 0; c < logits.cols; ++c) total += std::exp(Sum<T>(logits[r][c]) - Sum<T>(largest));
    sum += std::log(total) + Sum<T>(largest) - Sum<T>(logits[r][target]);
  }
  return T(sum);
}

template <class T>
Forward<T> forward(const nn::ModelConfig& config, const Parameters<T>& parameters, const Batch& batch,
                   const LossOptions& options = {}, const std::vector<Routing>* fixed_routing = nullptr) {
  const Matrix<T>& embedding = parameters.at("embed.weight");
  Forward<T> run;
  Matrix<T> x(static_cast<int64_t>(batch.tokens.size()), config.hidden_size);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) x[r][c] = embedding[batch.tokens[static_cast<size_t>(r)]][c];
  }
  run.blocks.resize(static_cast<size_t>(config.layers));
  T balance = T(0);
  for (int64_t i = 0; i < config.layers; ++i) {
    const auto layer = static_cast<size_t>(i);
    x = block(run.blocks[layer], parameters, i, config, x, batch.length,
              fixed_routing ? &(*fixed_routing)[layer] : nullptr);
    balance += run.blocks[layer].moe.router.balance_loss;
  }
  run.normed = rms_norm(parameters, "final_norm", x, config.norm_eps);
  run.logits = linear(parameters, output_name(config), run.normed);
  run.denominator = options.denominator > 0 ? options.denominator : std::max<double>(1, batch.counted());
  run.cross_entropy = cross_entropy_sum(run.logits, batch.targets) / T(run.denominator);
  run.loss = run.cross_entropy + T(config.moe.balance_loss_weight * options.balance_scale) * balance;
  return run;
}

template <class T>
Matrix<T> block_backward(Parameters<T>& grads, const BlockSaved<T>& saved, const Parameters<T>& parameters,
                         int64_t layer, const nn::ModelConfig& config, const Matrix<T>& grad_output, int64_t length,
                         double balance_scale) {
  const std::string name = layer_name(layer);
  const Matrix<T> grad_normed =
      config.is_moe_layer(layer)
          ? moe_backward(grads, saved.moe, parameters, name + "moe.", config, grad_output, balance_scale)
          : feed_forward_backward(grads, saved.ffn, parameters, name + "ffn", config.ffn.activation, grad_output);
  Matrix<T> grad_middle = grad_output;
  grad_middle.add(rms_norm_backward(grads, parameters, name + "ffn_norm", saved.middle, grad_normed, config.norm_eps));
  const Matrix<T> grad_attended =
      attention_backward(grads, saved.attention, parameters, name + "attention", config, grad_middle, length);
  Matrix<T> grad_x = grad_middle;
  grad_x.add(rms_norm_backward(grads, parameters, name + "attention_norm", saved.x, grad_attended, config.norm_eps));
  return grad_x;
}

// The gradient of run.loss for every parameter, the routing held fixed.
template <class T>
Parameters<T> backward(const nn::ModelConfig& config, const Parameters<T>& parameters, const Batch& batch,
                       const Forward<T>& run, const LossOptions& options = {}) {
  Parameters<T> grads = zeros_like(parameters);
  Matrix<T> grad_logits = run.logits;
  for (int64_t r = 0; r < grad_logits.rows; ++r) {
    const int64_t target = batch.targets[static_cast<size_t>(r)];
    softmax(grad_logits[r], grad_logits.cols);
    if (target >= 0) grad_logits[r][target] -= T(1);
    for (int64_t c = 0; c < grad_logits.cols; ++c) grad_logits[r][c] *= T(target >= 0 ? 1 / run.denominator : 0);
  }
  Matrix<T> grad = linear_backward(grads, parameters, output_name(config), run.normed, grad_logits);
  grad = rms_norm_backward(grads, parameters, "final_norm", run.blocks.back().output, grad, config.norm_eps);
  const double balance_scale = config.moe.balance_loss_weight * options.balance_scale;
  for (int64_t i = config.layers - 1; i >= 0; --i) {
    grad = block_backward(grads, run.blocks[static_cast<size_t>(i)], parameters, i, config, grad, batch.length,
                          balance_scale);
  }
  Matrix<T>& grad_embedding = grads.at("embed.weight");
  for (int64_t r = 0; r < grad.rows; ++r) {
    for (int64_t c = 0; c < grad.cols; ++c) grad_embedding[batch.tokens[static_cast<size_t>(r)]][c] += grad[r][c];
  }
  return grads;
}

}  // namespace mhmoe::reference
