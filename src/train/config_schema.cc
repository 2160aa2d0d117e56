#include "train/config_schema.h"

#include "train/config_key.h"

namespace mhmoe::train {
namespace {

using keys::above_min;
using keys::below_max;
using keys::boolean;
using keys::choice;
using keys::decimals;
using keys::integer;
using keys::later;
using keys::list;
using keys::Names;
using keys::number;
using keys::required;
using keys::string;
using keys::zero_is_null;

using ops::Activation;
using ops::BalanceCounts;

constexpr double kMaxSteps = 1e9;
constexpr double kMaxTokens = 1e15;
constexpr double kMaxWidth = 1 << 20;
constexpr double kMaxSeed = 9007199254740991;  // every integer up to here is exact in any JSON reader

using Table = std::vector<ConfigKey>;

void append(Table& table, Table keys) {
  for (ConfigKey& key : keys) table.push_back(std::move(key));
}

Table run_keys() {
  return {
      string(
          "name", "names the run and its folder", [](auto& c) -> auto& { return c.name; }),
      integer(
          "seed", 0, kMaxSeed, "seeds initial weights and data order", [](auto& c) -> auto& { return c.seed; }),
      string(
          "output_dir", "the folder that run folders go into", [](auto& c) -> auto& { return c.output_dir; }),
  };
}

Table data_keys() {
  return {
      list(
          "data.train", "training sources, mixed by weight", [](auto& c) -> auto& { return c.data.train; }),
      required(string(
          "data.train[].path", "a shard's prefix: PATH.bin and PATH.idx, as `mhmoe prepare` writes them",
          [](auto& c, size_t i) -> auto& { return c.data.train[i].path; })),
      above_min(number(
          "data.train[].weight", 0, 1e9, "share of the sequences drawn, relative to the other sources",
          [](auto& c, size_t i) -> auto& { return c.data.train[i].weight; })),
      list(
          "data.validation", "validation sets, each with its own curve",
          [](auto& c) -> auto& { return c.data.validation; }),
      required(string(
          "data.validation[].name", "the set's name in metrics and tables",
          [](auto& c, size_t i) -> auto& { return c.data.validation[i].name; })),
      required(string(
          "data.validation[].path", "a shard's prefix: PATH.bin and PATH.idx",
          [](auto& c, size_t i) -> auto& { return c.data.validation[i].path; })),
      string(
          "data.tokenizer", "a SentencePiece .model file, or \"bytes\"",
          [](auto& c) -> auto& { return c.data.tokenizer; }),
      integer(
          "data.sequence_length", 1, 1 << 24, "tokens of a sequence",
          [](auto& c) -> auto& { return c.data.sequence_length; }),
  };
}

Table model_keys() {
  const Names<Activation> activations = {
      {Activation::kSwiglu, "swiglu"}, {Activation::kRelu, "relu"}, {Activation::kGelu, "gelu"}};
  return {
      zero_is_null(integer(
          "model.vocab_size", 1, 1 << 24, "rows of the embedding; null: the tokenizer's size",
          [](auto& c) -> auto& { return c.model.vocab_size; })),
      integer(
          "model.layers", 1, 4096, "transformer blocks", [](auto& c) -> auto& { return c.model.layers; }),
      integer(
          "model.hidden_size", 2, kMaxWidth, "width of the residual stream",
          [](auto& c) -> auto& { return c.model.hidden_size; }),
      integer(
          "model.attention_heads", 1, 65536, "attention heads; must divide hidden_size into an even head size",
          [](auto& c) -> auto& { return c.model.attention_heads; }),
      boolean(
          "model.attention_bias", "biases on the attention projections",
          [](auto& c) -> auto& { return c.model.attention_bias; }),
      above_min(number(
          "model.norm_eps", 0, 1, "added to the mean square in RMSNorm",
          [](auto& c) -> auto& { return c.model.norm_eps; })),
      above_min(number(
          "model.rope_base", 0, 1e12, "base of the rotary angles", [](auto& c) -> auto& { return c.model.rope_base; })),
      boolean(
          "model.tie_embeddings", "the output layer uses the embedding's weights",
          [](auto& c) -> auto& { return c.model.tie_embeddings; }),
      choice(
          "model.ffn.activation", activations,
          "of every feed-forward: dense, expert and shared; swiglu has a gate matrix",
          [](auto& c) -> auto& { return c.model.ffn.activation; }),
      integer(
          "model.ffn.hidden_size", 1, kMaxWidth, "inner width of the dense feed-forward",
          [](auto& c) -> auto& { return c.model.ffn.hidden_size; }),
      boolean(
          "model.ffn.bias", "biases on every feed-forward: dense, expert and shared",
          [](auto& c) -> auto& { return c.model.ffn.bias; }),
      later("model.quantization.weights", {"\"none\"", "null"}, "quantization is", "BitNet weights"),
      later("model.quantization.activations", {"\"none\"", "null"}, "quantization is", "BitNet activations"),
  };
}

Table moe_keys() {
  const Names<nn::MoeResidual> residuals = {{nn::MoeResidual::kOuter, "outer"}, {nn::MoeResidual::kInner, "inner"}};
  const Names<BalanceCounts> counts = {{BalanceCounts::kFirstChoice, "first_choice"},
                                       {BalanceCounts::kAllChoices, "all_choices"}};
  return {
      integer(
          "model.moe.every_n_layers", 0, 4096, "block i, from 0, is MoE if (i + 1) is a multiple; 0: a dense model",
          [](auto& c) -> auto& { return c.model.moe.every_n_layers; }),
      integer(
          "model.moe.experts", 1, 65536, "experts of a layer", [](auto& c) -> auto& { return c.model.moe.experts; }),
      integer(
          "model.moe.top_k", 1, 65536, "experts that each token or sub-token goes to",
          [](auto& c) -> auto& { return c.model.moe.top_k; }),
      integer(
          "model.moe.heads", 1, 65536, "sub-tokens that a token is split into; 1: plain sparse MoE",
          [](auto& c) -> auto& { return c.model.moe.heads; }),
      integer(
          "model.moe.expert_hidden_size", 1, kMaxWidth, "inner width of an expert",
          [](auto& c) -> auto& { return c.model.moe.expert_hidden_size; }),
      boolean(
          "model.moe.head_layer", "the projection before the split; null: if heads > 1",
          [](auto& c) -> auto& { return c.model.moe.head_layer; }),
      boolean(
          "model.moe.merge_layer", "the projection after the merge; null: if heads > 1",
          [](auto& c) -> auto& { return c.model.moe.merge_layer; }),
      boolean(
          "model.moe.projection_bias", "biases on the head and merge layers",
          [](auto& c) -> auto& { return c.model.moe.projection_bias; }),
      choice(
          "model.moe.residual", residuals, "inner: each sub-token is also added to its experts' sum",
          [](auto& c) -> auto& { return c.model.moe.residual; }),
      later("model.moe.router.kind", {"\"linear\""}, "other routers are",
            "how scores come from a token: linear is softmax(x . e)"),
      boolean(
          "model.moe.router.normalize_top_k", "gate weights divided by their sum over the chosen experts",
          [](auto& c) -> auto& { return c.model.moe.router.normalize_top_k; }),
      decimals(above_min(number(
                   "model.moe.capacity_factor", 0, 64, "slots of an expert relative to an even load; null: dropless",
                   [](auto& c) -> auto& { return c.model.moe.capacity_factor; })),
               6),
      number(
          "model.moe.balance_loss_weight", 0, 1e6, "weight of the balance loss",
          [](auto& c) -> auto& { return c.model.moe.balance_loss_weight; }),
      choice(
          "model.moe.balance_loss_counts", counts, "choices that an expert's share in the balance loss counts",
          [](auto& c) -> auto& { return c.model.moe.balance_loss_counts; }),
      integer(
          "model.moe.shared_expert_hidden_size", 0, kMaxWidth, "inner width of the expert every token uses; 0: none",
          [](auto& c) -> auto& { return c.model.moe.shared_expert_hidden_size; }),
  };
}

Table train_keys() {
  const Names<Precision> precisions = {
      {Precision::kAuto, "auto"}, {Precision::kFp32, "fp32"}, {Precision::kBf16, "bf16"}};
  const Names<Recompute> recomputes = {{Recompute::kNone, "none"}, {Recompute::kBlock, "block"}};
  return {
      integer(
          "train.steps", 1, kMaxSteps, "optimizer updates", [](auto& c) -> auto& { return c.train.steps; }),
      integer(
          "train.batch_tokens", 1, 1e12, "tokens of an update, over all micro-batches and ranks",
          [](auto& c) -> auto& { return c.train.batch_tokens; }),
      integer(
          "train.micro_batch_sequences", 1, 1 << 20, "sequences computed at once",
          [](auto& c) -> auto& { return c.train.micro_batch_sequences; }),
      choice(
          "train.precision", precisions, "auto: bf16 where the device has it, else fp32",
          [](auto& c) -> auto& { return c.train.precision; }),
      number(
          "train.gradient_clip_norm", 0, 1e9, "largest global gradient norm; 0: no clipping",
          [](auto& c) -> auto& { return c.train.gradient_clip_norm; }),
      choice(
          "train.recompute", recomputes, "block: each block's activations are computed again in the backward pass",
          [](auto& c) -> auto& { return c.train.recompute; }),
  };
}

Table optimizer_keys() {
  const Names<OptimizerKind> kinds = {{OptimizerKind::kAdamW, "adamw"}, {OptimizerKind::kAdam, "adam"}};
  const Names<WeightDecayOn> decay_on = {{WeightDecayOn::kAll, "all"}, {WeightDecayOn::kMatrices, "matrices"}};
  const Names<Decay> decays = {{Decay::kLinear, "linear"}, {Decay::kCosine, "cosine"}};
  return {
      choice(
          "train.optimizer.kind", kinds, "adamw: decoupled weight decay; adam: decay added to the gradient",
          [](auto& c) -> auto& { return c.train.optimizer.kind; }),
      below_max(number(
          "train.optimizer.beta1", 0, 1, "decay of the first moment",
          [](auto& c) -> auto& { return c.train.optimizer.beta1; })),
      below_max(number(
          "train.optimizer.beta2", 0, 1, "decay of the second moment",
          [](auto& c) -> auto& { return c.train.optimizer.beta2; })),
      above_min(number(
          "train.optimizer.eps", 0, 1, "added to the root of the second moment",
          [](auto& c) -> auto& { return c.train.optimizer.eps; })),
      number(
          "train.optimizer.weight_decay", 0, 1000, "weight decay",
          [](auto& c) -> auto& { return c.train.optimizer.weight_decay; }),
      choice(
          "train.optimizer.weight_decay_on", decay_on, "the parameters that decay",
          [](auto& c) -> auto& { return c.train.optimizer.weight_decay_on; }),
      number(
          "train.learning_rate.peak", 0, 1000, "learning rate after the warm-up",
          [](auto& c) -> auto& { return c.train.learning_rate.peak; }),
      number(
          "train.learning_rate.final", 0, 1000, "learning rate at the last step",
          [](auto& c) -> auto& { return c.train.learning_rate.final; }),
      integer(
          "train.learning_rate.warmup_steps", 0, kMaxSteps, "steps of linear warm-up from 0",
          [](auto& c) -> auto& { return c.train.learning_rate.warmup_steps; }),
      choice(
          "train.learning_rate.decay", decays, "curve from peak to final",
          [](auto& c) -> auto& { return c.train.learning_rate.decay; }),
  };
}

Table other_keys() {
  return {
      later("parallel.expert_parallel_size", {"null", "1"}, "expert parallelism is",
            "ranks that share one set of experts"),
      integer(
          "parallel.overlap_chunks", 1, 64, "groups of experts pipelined with their transfers; no effect on one rank",
          [](auto& c) -> auto& { return c.parallel.overlap_chunks; }),
      later("parallel.width_invariant", {"false"}, "more than one rank is", "the same bytes at every number of ranks"),
      later("parallel.verify_transfers", {"false"}, "transfers between ranks are", "checksums on transfers"),
      integer(
          "parallel.timeout_seconds", 1, 1e6, "how long a rank waits for its peers; no effect on one rank",
          [](auto& c) -> auto& { return c.parallel.timeout_seconds; }),
      integer(
          "evaluation.every_steps", 1, kMaxSteps, "steps between validations",
          [](auto& c) -> auto& { return c.evaluation.every_steps; }),
      integer(
          "evaluation.tokens", 1, kMaxTokens, "tokens scored of each validation set, at most",
          [](auto& c) -> auto& { return c.evaluation.tokens; }),
      later("evaluation.capacity_factor", {"\"train\""}, "another capacity in validation is",
            "capacity during validation"),
      later("checkpoint.every_steps", {"null", "0"}, "checkpoints are", "steps between checkpoints; 0: none"),
      later("checkpoint.keep_last", {"null", "0"}, "checkpoints are", "checkpoints kept"),
      integer(
          "log.every_steps", 1, kMaxSteps, "steps between log lines",
          [](auto& c) -> auto& { return c.log.every_steps; }),
      later("log.routing_every_steps", {"null", "0"}, "records of the routing are",
            "steps between records of the routing; 0: none"),
  };
}

}  // namespace

std::span<const ConfigKey> config_keys() {
  static const Table table = [] {
    Table all;
    for (auto* keys : {run_keys, data_keys, model_keys, moe_keys, train_keys, optimizer_keys, other_keys}) {
      append(all, keys());
    }
    return all;
  }();
  return table;
}

}  // namespace mhmoe::train
