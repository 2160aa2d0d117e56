#include "train/config_schema.h"

#include "train/config_key.h"
#include "train/config_model_keys.h"

namespace mhmoe::train {
namespace {

using keys::above_min;
using keys::below_max;
using keys::boolean;
using keys::choice;
using keys::integer;
using keys::later;
using keys::list;
using keys::Names;
using keys::number;
using keys::required;
using keys::string;
using keys::zero_is_null;

constexpr double kMaxSteps = 1e9;
constexpr double kMaxTokens = 1e15;
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
  const Names<data::OnBadBlock> on_bad_block = {{data::OnBadBlock::kStop, "stop"}, {data::OnBadBlock::kSkip, "skip"}};
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
      choice(
          "data.on_bad_block", on_bad_block,
          "a block of training tokens with a wrong checksum; skip: the next good sequences take the place of its own",
          [](auto& c) -> auto& { return c.data.on_bad_block; }),
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
      boolean(
          "train.cuda_graphs", "record a micro-batch and an update once and replay them; not on the CPU",
          [](auto& c) -> auto& { return c.train.cuda_graphs; }),
      boolean(
          "train.forbid_host_sync", "a wait for the device while a step is queued is an error; for debugging",
          [](auto& c) -> auto& { return c.train.forbid_host_sync; }),
      integer(
          "train.max_refused_steps", 1, kMaxSteps, "steps refused in a row after which the run stops",
          [](auto& c) -> auto& { return c.train.max_refused_steps; }),
      number(
          "train.spike_guard.threshold", 0, 1e6,
          "refuse steps whose loss or gradient norm lies so many robust deviations above the median; 0: off",
          [](auto& c) -> auto& { return c.train.spike_guard.threshold; }),
      integer(
          "train.spike_guard.window_steps", 16, 1e6, "accepted steps whose median and deviation are taken",
          [](auto& c) -> auto& { return c.train.spike_guard.window_steps; }),
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

Table parallel_keys() {
  const Names<Hierarchical> hierarchical = {
      {Hierarchical::kAuto, "auto"}, {Hierarchical::kOn, "on"}, {Hierarchical::kOff, "off"}};
  return {
      zero_is_null(integer(
          "parallel.expert_parallel_size", 1, 1 << 20,
          "ranks that share one set of experts; null: the greatest common divisor of ranks and experts",
          [](auto& c) -> auto& { return c.parallel.expert_parallel_size; })),
      integer(
          "parallel.overlap_chunks", 1, 64,
          "groups of a rank's experts pipelined with their transfers; no effect on one rank",
          [](auto& c) -> auto& { return c.parallel.overlap_chunks; }),
      boolean(
          "parallel.width_invariant", "the same bytes at every number of ranks; on the CPU, for powers of two",
          [](auto& c) -> auto& { return c.parallel.width_invariant; }),
      boolean(
          "parallel.verify_transfers", "checksums on the rows that travel between ranks",
          [](auto& c) -> auto& { return c.parallel.verify_transfers; }),
      choice(
          "parallel.hierarchical_all_to_all", hierarchical,
          "send rows within a node first, then between nodes; auto: where messages are small",
          [](auto& c) -> auto& { return c.parallel.hierarchical_all_to_all; }),
      zero_is_null(integer(
          "parallel.ranks_per_node", 1, 1 << 20, "ranks of a machine; null: as the launcher says",
          [](auto& c) -> auto& { return c.parallel.ranks_per_node; })),
      integer(
          "parallel.timeout_seconds", 1, 1e6, "how long a rank waits for its peers; no effect on one rank",
          [](auto& c) -> auto& { return c.parallel.timeout_seconds; }),
  };
}

Table other_keys() {
  return {
      integer(
          "evaluation.every_steps", 1, kMaxSteps, "steps between validations",
          [](auto& c) -> auto& { return c.evaluation.every_steps; }),
      integer(
          "evaluation.tokens", 1, kMaxTokens, "tokens scored of each validation set, at most",
          [](auto& c) -> auto& { return c.evaluation.tokens; }),
      later("evaluation.capacity_factor", {"\"train\""}, "another capacity in validation is",
            "capacity during validation"),
      integer(
          "checkpoint.every_steps", 0, kMaxSteps, "steps between checkpoints; 0: only where a run ends or is stopped",
          [](auto& c) -> auto& { return c.checkpoint.every_steps; }),
      integer(
          "checkpoint.keep_last", 1, 1e6, "newest checkpoints kept; older ones are deleted",
          [](auto& c) -> auto& { return c.checkpoint.keep_last; }),
      integer(
          "checkpoint.keep_every_steps", 0, kMaxSteps,
          "checkpoints of steps that this divides are kept for ever; 0: none",
          [](auto& c) -> auto& { return c.checkpoint.keep_every_steps; }),
      integer(
          "checkpoint.max_failed_saves", 1, 1e6, "saves that may fail in a row before the run stops",
          [](auto& c) -> auto& { return c.checkpoint.max_failed_saves; }),
      boolean(
          "checkpoint.asynchronous", "training goes on while a checkpoint is written; the same bytes",
          [](auto& c) -> auto& { return c.checkpoint.asynchronous; }),
      integer(
          "log.every_steps", 1, kMaxSteps, "steps between log lines",
          [](auto& c) -> auto& { return c.log.every_steps; }),
      integer(
          "log.routing_every_steps", 0, kMaxSteps, "steps between records of the routing; 0: none",
          [](auto& c) -> auto& { return c.log.routing_every_steps; }),
  };
}

}  // namespace

std::span<const ConfigKey> config_keys() {
  static const Table table = [] {
    Table all;
    for (auto* keys : {run_keys, data_keys, model_keys, moe_layer_keys, moe_routing_keys, train_keys, optimizer_keys,
                       parallel_keys, other_keys}) {
      append(all, keys());
    }
    return all;
  }();
  return table;
}

}  // namespace mhmoe::train
