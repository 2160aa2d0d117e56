#include "nn/parameter_file.h"

#include <algorithm>
#include <set>

namespace mhmoe::nn {
namespace {

// At most this many names are listed in one message.
constexpr size_t kListed = 8;

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kListed); ++i) text += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kListed) text += fmt::format(" and {} more", names.size() - kListed);
  return text;
}

void append(std::string& message, const char* what, const std::vector<std::string>& names) {
  if (!names.empty()) message += fmt::format("{}{}: {}", message.empty() ? "" : "; ", what, list(names));
}

const Tensor* find(std::span<const SafetensorsFile> files, const std::string& name) {
  for (const SafetensorsFile& file : files) {
    if (file.contains(name)) return &file.at(name);
  }
  return nullptr;
}

std::string paths_of(std::span<const SafetensorsFile> files) {
  std::string paths;
  for (const SafetensorsFile& file : files) paths += (paths.empty() ? "" : ", ") + file.path();
  return paths;
}

void check_names_and_shapes(const ParameterStore& parameters, std::span<const FlatVector> vectors,
                            std::span<const SafetensorsFile> files) {
  std::vector<std::string> missing, unexpected, wrong;
  std::set<std::string> expected;
  for (const FlatVector& vector : vectors) {
    parameters.visit([&](const Parameter& /*parameter*/, const ParameterPart& part) {
      const std::string name = vector.prefix + part.name;
      expected.insert(name);
      const Tensor* found = find(files, name);
      if (found == nullptr) return missing.push_back(name);
      const bool readable = found->dtype == DType::kF32 || found->dtype == DType::kF64;
      if (!readable || !std::ranges::equal(found->shape(), part.dims)) {
        wrong.push_back(fmt::format("{} is {}, expected {}", name, found->describe(),
                                    Tensor(nullptr, DType::kF32, part.dims).describe()));
      }
    });
  }
  for (const SafetensorsFile& file : files) {
    for (const std::string& name : file.names()) {
      if (!expected.contains(name)) unexpected.push_back(name);
    }
  }
  std::string message;
  append(message, "missing", missing);
  append(message, "not part of this model", unexpected);
  append(message, "wrong shape or dtype", wrong);
  if (!message.empty()) {
    fail(ExitCode::kBadData, "{}: does not fit the model: {}; use the configuration the file was made with",
         paths_of(files), message);
  }
}

}  // namespace

void load_flat_vectors(Context& ctx, const ParameterStore& parameters, std::span<const FlatVector> vectors,
                       std::span<const SafetensorsFile> files) {
  check_names_and_shapes(parameters, vectors, files);
  std::vector<float> values;
  for (const FlatVector& vector : vectors) {
    parameters.visit([&](const Parameter& parameter, const ParameterPart& part) {
      const Tensor& source = *find(files, vector.prefix + part.name);
      const Tensor target = vector.flat.slice(parameter.offset + part.offset, part.count());
      if (source.dtype == DType::kF32) return ctx.upload(target, source.data);
      const std::span<const double> wide(source.as<double>(), static_cast<size_t>(source.count()));
      values.assign(wide.begin(), wide.end());
      ctx.upload(target, values.data());
    });
  }
}

void load_parameters(Context& ctx, ParameterStore& parameters, std::span<const SafetensorsFile> files) {
  const FlatVector masters{"", parameters.master()};
  load_flat_vectors(ctx, parameters, {&masters, 1}, files);
  parameters.refresh_copies(ctx);
}

std::vector<NamedTensor> name_parts(const ParameterStore& parameters, float* values, const std::string& prefix) {
  std::vector<NamedTensor> tensors;
  parameters.visit([&](const Parameter& parameter, const ParameterPart& part) {
    tensors.push_back({prefix + part.name, Tensor(values + parameter.offset + part.offset, DType::kF32, part.dims)});
  });
  return tensors;
}

}  // namespace mhmoe::nn
