#include "nn/parameters.h"

#include <cmath>

#include "core/parallel_for.h"
#include "core/philox.h"

namespace mhmoe::nn {
namespace {

int64_t product(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (const int64_t dim : dims) n *= dim;
  return n;
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
  std::vector<ParameterPart> parts{{std::move(name), dims, init}};
  return add_packed(kind, std::move(dims), std::move(parts));
}

Parameter& ParameterStore::add_packed(ParameterKind kind, std::vector<int64_t> dims, std::vector<ParameterPart> parts) {
  const size_t count = parts.size();
  Parameter& added = add_experts(kind, std::move(dims), std::move(parts), 0, count);
  added.placement = Placement::kEverywhere;
  return added;
}

Parameter& ParameterStore::add_experts(ParameterKind kind, std::vector<int64_t> dims, std::vector<ParameterPart> parts,
                                       size_t local_begin, size_t local_count) {
  MHMOE_CHECK(local_begin + local_count <= parts.size(), "parameter {}: parts {} to {} of {}", parts[0].name,
              local_begin, local_begin + local_count, parts.size());
  for (ParameterPart& part : parts) {
    part.global_offset = global_count_;
    global_parts_.push_back({part.name, part.dims, global_count_});
    global_count_ += part.count();
  }
  const auto first = parts.begin() + static_cast<ptrdiff_t>(local_begin);
  std::vector<ParameterPart> local(first, first + static_cast<ptrdiff_t>(local_count));
  int64_t offset = 0;
  for (ParameterPart& part : local) {
    part.offset = offset;
    offset += part.count();
  }
  MHMOE_CHECK(offset == product(dims), "parameter {}: its parts have {} elements, the whole has {}", parts[0].name,
              offset, product(dims));
  parameters_.push_back({.kind = kind,
                         .placement = Placement::kWithExperts,
                         .dims = std::move(dims),
                         .parts = std::move(local),
                         .order = static_cast<int64_t>(parameters_.size()),
                         .value = {},
                         .master = {},
                         .gradient = {}});
  return parameters_.back();
}

void ParameterStore::initialize(Context& ctx, uint64_t seed) {
  if (ctx.sizing()) return;
  std::vector<float> values;
  visit([&](const Parameter& parameter, const ParameterPart& part) {
    values.resize(static_cast<size_t>(part.count()));
    fill(values, part.init, seed, part.name);
    set_part(ctx, parameter, part, values.data());
  });
}

void ParameterStore::visit(const std::function<void(const Parameter&, const ParameterPart&)>& f) const {
  for (const Parameter& parameter : parameters_) {
    for (const ParameterPart& part : parameter.parts) f(parameter, part);
  }
}

}  // namespace mhmoe::nn
