#include "nn/parameters.h"

#include <cmath>

#include "core/parallel_for.h"
#include "core/philox.h"
#include "ops/elementwise.h"

namespace mhmoe::nn {
namespace {

// Keeps every parameter 256-byte aligned in f32 and 128-byte aligned in bf16.
constexpr int64_t kAlignment = 64;

int64_t product(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (const int64_t dim : dims) n *= dim;
  return n;
}

Tensor flat_slice(const Tensor& flat, int64_t offset, const std::vector<int64_t>& dims) {
  return Tensor(flat.slice(offset, product(dims)).data, flat.dtype, dims, flat.device);
}

void fill(std::span<float> values, const Init& init, uint64_t seed, const std::string& name) {
  const Philox random(seed, name);
  parallel_for(static_cast<int64_t>(values.size()), 1 << 14, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t i = begin; i < end; ++i) {
      switch (init.kind) {
        case Init::Kind::kZeros:
          values[i] = 0;
          break;
        case Init::Kind::kOnes:
          values[i] = 1;
          break;
        case Init::Kind::kNormal:
          values[i] = static_cast<float>(init.scale * random.normal(i));
          break;
        case Init::Kind::kUniform:
          values[i] = static_cast<float>(init.scale * (2.0 * random.uniform(i) - 1));
          break;
      }
    }
  });
}

}  // namespace

Init Init::linear_default(int64_t fan_in) {
  return uniform(1 / std::sqrt(static_cast<double>(fan_in)));
}

Init Init::xavier_uniform(int64_t fan_in, int64_t fan_out, double gain) {
  return uniform(gain * std::sqrt(6.0 / static_cast<double>(fan_in + fan_out)));
}

int64_t ParameterPart::count() const {
  return product(dims);
}
int64_t Parameter::count() const {
  return product(dims);
}

Parameter& ParameterStore::add(ParameterKind kind, std::string name, std::vector<int64_t> dims, Init init) {
  std::vector<ParameterPart> parts{{std::move(name), dims, init, 0}};
  return add_packed(kind, std::move(dims), std::move(parts));
}

Parameter& ParameterStore::add_packed(ParameterKind kind, std::vector<int64_t> dims, std::vector<ParameterPart> parts) {
  int64_t offset = 0;
  for (ParameterPart& part : parts) {
    part.offset = offset;
    offset += part.count();
  }
  MHMOE_CHECK(offset == product(dims), "parameter {}: its parts have {} elements, the whole has {}", parts[0].name,
              offset, product(dims));
  parameters_.push_back({kind, std::move(dims), std::move(parts), flat_count_, {}, {}, {}});
  flat_count_ += (offset + kAlignment - 1) / kAlignment * kAlignment;
  return parameters_.back();
}

void ParameterStore::allocate(Context& ctx, DType compute, bool gradients) {
  compute_ = compute;
  master_ = ctx.state().allocate("parameters", DType::kF32, {flat_count_});
  ctx.fill_zero(master_);
  if (compute != DType::kF32) {
    copy_ = ctx.state().allocate("parameter copies", compute, {flat_count_});
    ctx.fill_zero(copy_);
  }
  if (gradients) {
    gradient_ = ctx.state().allocate("gradients", DType::kF32, {flat_count_});
    ctx.fill_zero(gradient_);
  }
  for (Parameter& p : parameters_) {
    p.master = flat_slice(master_, p.offset, p.dims);
    p.value = p.kind == ParameterKind::kMatrix && !copy_.empty() ? flat_slice(copy_, p.offset, p.dims) : p.master;
    if (gradients) p.gradient = flat_slice(gradient_, p.offset, p.dims);
  }
}

void ParameterStore::initialize(Context& ctx, uint64_t seed) {
  if (ctx.sizing()) return;
  std::vector<float> values;
  visit([&](const Parameter& parameter, const ParameterPart& part) {
    values.resize(static_cast<size_t>(part.count()));
    fill(values, part.init, seed, part.name);
    ctx.upload(part_of(parameter.master, part), values.data());
  });
  refresh_copies(ctx);
}

void ParameterStore::refresh_copies(Context& ctx) {
  if (!copy_.empty()) ops::cast(ctx, {.out = copy_, .in = master_});
}

void ParameterStore::visit(const std::function<void(const Parameter&, const ParameterPart&)>& f) const {
  for (const Parameter& parameter : parameters_) {
    for (const ParameterPart& part : parameter.parts) f(parameter, part);
  }
}

int64_t ParameterStore::parameter_count() const {
  int64_t n = 0;
  for (const Parameter& parameter : parameters_) n += parameter.count();
  return n;
}

Tensor ParameterStore::part_of(const Tensor& tensor, const ParameterPart& part) {
  return flat_slice(tensor, part.offset, part.dims);
}

}  // namespace mhmoe::nn
