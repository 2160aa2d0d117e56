// Where parameters lie: the flat vectors, their buckets, and the shards of the optimizer's state.
#include <algorithm>
#include <numeric>

#include "core/parallel_for.h"
#include "nn/parameters.h"
#include "ops/elementwise.h"

namespace mhmoe::nn {
namespace {

// Keeps every parameter 256-byte aligned in f32 and 128-byte aligned in bf16.
constexpr int64_t kAlignment = 64;
constexpr int64_t kRoundingGrain = int64_t{1} << 16;  // elements a thread

int64_t round_up(int64_t count, int64_t unit) {
  return (count + unit - 1) / unit * unit;
}

Tensor flat_slice(const Tensor& flat, int64_t offset, const std::vector<int64_t>& dims) {
  const int64_t count = std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
  return Tensor(flat.slice(offset, count).data, flat.dtype, dims, flat.device);
}

}  // namespace

// Parameters of one placement and kind lie together, in the order in which they were added.
void ParameterStore::lay_out(const Sharding& sharding) {
  std::vector<Parameter*> sorted;
  for (Parameter& parameter : parameters_) sorted.push_back(&parameter);
  std::ranges::stable_sort(
      sorted, {}, [](const Parameter* p) { return static_cast<int>(p->placement) * 3 + static_cast<int>(p->kind); });
  buckets_.clear();
  flat_count_ = 0;
  const auto close = [&] {
    if (buckets_.empty()) return;
    Bucket& bucket = buckets_.back();
    const Sharding::Of& shards = sharding.of(bucket.placement);
    flat_count_ = bucket.begin + round_up(flat_count_ - bucket.begin, kAlignment * shards.shards);
    bucket.count = flat_count_ - bucket.begin;
    bucket.owned_count = bucket.count / shards.shards;
    bucket.owned_begin = bucket.begin + shards.index * bucket.owned_count;
  };
  for (Parameter* p : sorted) {
    const int64_t shards = sharding.of(p->placement).shards;
    const int64_t elements = sharding.bucket_elements > 0 ? sharding.bucket_elements : bucket_elements_for(shards);
    const bool fits = !buckets_.empty() && buckets_.back().placement == p->placement &&
                      buckets_.back().kind == p->kind &&
                      (shards == 1 || flat_count_ - buckets_.back().begin < elements);
    if (!fits) {
      close();
      buckets_.push_back({.placement = p->placement,
                          .kind = p->kind,
                          .begin = flat_count_,
                          .order = p->order,
                          .values = {},
                          .gradient = {},
                          .owned_master = {},
                          .owned_copy = {}});
    }
    p->offset = flat_count_;
    flat_count_ += round_up(p->count(), kAlignment);
  }
  close();
  owned_count_ = 0;
  for (Bucket& bucket : buckets_) {
    bucket.state_begin = owned_count_;
    owned_count_ += bucket.owned_count;
  }
}

// Masters are whole where forward and backward read them; of bf16 matrices only the owned shard is kept.
void ParameterStore::allocate_vectors(Context& ctx, bool gradients) {
  const bool half = compute_ != DType::kF32;
  const auto shard_only = [&](const Bucket& bucket) { return half && bucket.kind == ParameterKind::kMatrix; };
  int64_t master_count = 0;
  for (const Bucket& bucket : buckets_) master_count += shard_only(bucket) ? bucket.owned_count : bucket.count;
  master_ = ctx.state().allocate("parameters", DType::kF32, {master_count});
  ctx.fill_zero(master_);
  if (half) {
    copy_ = ctx.state().allocate("parameter copies", compute_, {flat_count_});
    ctx.fill_zero(copy_);
  }
  if (gradients) {
    gradient_ = ctx.state().allocate("gradients", DType::kF32, {flat_count_});
    ctx.fill_zero(gradient_);
  }
  int64_t begin = 0;
  for (Bucket& bucket : buckets_) {
    const bool shard = shard_only(bucket);
    const Tensor master = master_.slice(begin, shard ? bucket.owned_count : bucket.count);
    begin += master.count();
    bucket.values = shard ? copy_.slice(bucket.begin, bucket.count) : master;
    bucket.owned_master = shard ? master : bucket.owned_values();
    if (shard) bucket.owned_copy = bucket.owned_values();
    if (gradients) bucket.gradient = gradient_.slice(bucket.begin, bucket.count);
  }
}

const Bucket& ParameterStore::bucket_of(const Parameter& parameter) const {
  const auto after = std::ranges::upper_bound(buckets_, parameter.offset, {}, &Bucket::begin);
  return *std::prev(after);
}

void ParameterStore::point(bool gradients) {
  for (Parameter& p : parameters_) {
    const Bucket& bucket = bucket_of(p);
    const int64_t offset = p.offset - bucket.begin;
    p.value = flat_slice(bucket.values, offset, p.dims);
    const bool all_owned = bucket.owned_count == bucket.count;
    p.master = bucket.owned_copy.empty() ? p.value
               : all_owned               ? flat_slice(bucket.owned_master, offset, p.dims)
                                         : Tensor();
    if (gradients) p.gradient = flat_slice(bucket.gradient, offset, p.dims);
  }
}

void ParameterStore::allocate(Context& ctx, DType compute, bool gradients, const Sharding& sharding) {
  compute_ = compute;
  lay_out(sharding);
  allocate_vectors(ctx, gradients);
  point(gradients);
}

void ParameterStore::set_part(Context& ctx, const Parameter& parameter, const ParameterPart& part,
                              const float* values) {
  const Bucket& bucket = bucket_of(parameter);
  if (bucket.owned_copy.empty()) return ctx.upload(part_of(parameter.value, part), values);
  std::vector<bfloat16> rounded(static_cast<size_t>(part.count()));
  parallel_for(part.count(), kRoundingGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t i = begin; i < end; ++i) rounded[i] = bfloat16(values[i]);
  });
  ctx.upload(part_of(parameter.value, part), rounded.data());
  const int64_t first = parameter.offset + part.offset;
  const int64_t begin = std::max(first, bucket.owned_begin);
  const int64_t end = std::min(first + part.count(), bucket.owned_begin + bucket.owned_count);
  if (begin < end) {
    ctx.upload(bucket.owned_master.slice(begin - bucket.owned_begin, end - begin), values + (begin - first));
  }
}

void ParameterStore::refresh_copies(Context& ctx) {
  if (copy_.empty()) return;
  MHMOE_CHECK(master_.count() == copy_.count(), "copies are refreshed from masters that are not all here");
  ops::cast(ctx, {.out = copy_, .in = master_});
}

Tensor ParameterStore::part_of(const Tensor& tensor, const ParameterPart& part) {
  return flat_slice(tensor, part.offset, part.dims);
}

std::vector<ParameterStore::OwnedPiece> ParameterStore::owned_pieces() const {
  std::vector<OwnedPiece> pieces;
  visit([&](const Parameter& parameter, const ParameterPart& part) {
    const Bucket& bucket = bucket_of(parameter);
    const int64_t first = parameter.offset + part.offset;
    const int64_t begin = std::max(first, bucket.owned_begin);
    const int64_t end = std::min(first + part.count(), bucket.owned_begin + bucket.owned_count);
    if (begin >= end) return;
    pieces.push_back({.part = &part,
                      .part_begin = begin - first,
                      .global_offset = part.global_offset + begin - first,
                      .state_begin = bucket.state_begin + begin - bucket.owned_begin,
                      .count = end - begin});
  });
  return pieces;
}

}  // namespace mhmoe::nn
