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

void check_names_and_shapes(const ParameterStore& parameters, const SafetensorsFile& file) {
  std::vector<std::string> missing, unexpected, wrong;
  std::set<std::string> expected;
  parameters.visit([&](const Parameter& /*parameter*/, const ParameterPart& part) {
    expected.insert(part.name);
    if (!file.contains(part.name)) return missing.push_back(part.name);
    const Tensor& found = file.at(part.name);
    const bool readable = found.dtype == DType::kF32 || found.dtype == DType::kF64;
    if (!readable || !std::ranges::equal(found.shape(), part.dims)) {
      wrong.push_back(fmt::format("{} is {}, expected {}", part.name, found.describe(),
                                  Tensor(nullptr, DType::kF32, part.dims).describe()));
    }
  });
  for (const std::string& name : file.names()) {
    if (!expected.contains(name)) unexpected.push_back(name);
  }
  std::string message;
  append(message, "missing", missing);
  append(message, "not part of this model", unexpected);
  append(message, "wrong shape or dtype", wrong);
  if (!message.empty()) {
    fail(ExitCode::kBadData, "{}: does not fit the model: {}; use the configuration the file was made with",
         file.path(), message);
  }
}

}  // namespace

void load_parameters(Context& ctx, ParameterStore& parameters, const SafetensorsFile& file) {
  check_names_and_shapes(parameters, file);
  std::vector<float> values;
  parameters.visit([&](const Parameter& parameter, const ParameterPart& part) {
    const Tensor& source = file.at(part.name);
    const Tensor target = ParameterStore::part_of(parameter.master, part);
    if (source.dtype == DType::kF32) return ctx.upload(target, source.data);
    const std::span<const double> wide(source.as<double>(), static_cast<size_t>(source.count()));
    values.assign(wide.begin(), wide.end());
    ctx.upload(target, values.data());
  });
  parameters.refresh_copies(ctx);
}

void save_parameters(Context& ctx, const ParameterStore& parameters, const std::string& path,
                     const std::map<std::string, std::string>& metadata) {
  std::vector<float> values(static_cast<size_t>(parameters.master().count()));
  ctx.download(values.data(), parameters.master());
  std::vector<NamedTensor> tensors;
  parameters.visit([&](const Parameter& parameter, const ParameterPart& part) {
    tensors.push_back({part.name, Tensor(values.data() + parameter.offset + part.offset, DType::kF32, part.dims)});
  });
  write_safetensors(path, tensors, metadata);
}

}  // namespace mhmoe::nn
