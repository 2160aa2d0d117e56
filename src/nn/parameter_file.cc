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

void check_names_and_shapes(const ParameterStore& parameters, std::span<const std::string> prefixes,
                            std::span<const SafetensorsFile> files) {
  std::vector<std::string> missing, unexpected, wrong;
  std::set<std::string> expected;
  for (const std::string& prefix : prefixes) {
    for (const ParameterStore::GlobalPart& part : parameters.global_parts()) {
      const std::string name = prefix + part.name;
      expected.insert(name);
      const Tensor* found = find(files, name);
      if (found == nullptr) {
        missing.push_back(name);
        continue;
      }
      const bool readable = found->dtype == DType::kF32 || found->dtype == DType::kF64;
      if (!readable || !std::ranges::equal(found->shape(), part.dims)) {
        wrong.push_back(fmt::format("{} is {}, expected {}", name, found->describe(),
                                    Tensor(nullptr, DType::kF32, part.dims).describe()));
      }
    }
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

// A tensor's elements as f32, converted into `buffer` where they are not.
const float* as_floats(const Tensor& tensor, std::vector<float>& buffer) {
  if (tensor.dtype == DType::kF32) return tensor.as<const float>();
  const std::span<const double> wide(tensor.as<const double>(), static_cast<size_t>(tensor.count()));
  buffer.assign(wide.begin(), wide.end());
  return buffer.data();
}

}  // namespace

void load_owned_vectors(Context& ctx, const ParameterStore& parameters, std::span<const OwnedVector> vectors,
                        std::span<const SafetensorsFile> files) {
  std::vector<std::string> prefixes;
  for (const OwnedVector& vector : vectors) prefixes.push_back(vector.prefix);
  check_names_and_shapes(parameters, prefixes, files);
  std::vector<float> buffer;
  for (const OwnedVector& vector : vectors) {
    for (const ParameterStore::OwnedPiece& piece : parameters.owned_pieces()) {
      const float* values = as_floats(*find(files, vector.prefix + piece.part->name), buffer);
      ctx.upload(vector.owned.slice(piece.state_begin, piece.count), values + piece.part_begin);
    }
  }
}

void load_parameters(Context& ctx, ParameterStore& parameters, std::span<const SafetensorsFile> files) {
  const std::string no_prefix;
  check_names_and_shapes(parameters, {&no_prefix, 1}, files);
  std::vector<float> buffer;
  parameters.visit([&](const Parameter& parameter, const ParameterPart& part) {
    parameters.set_part(ctx, parameter, part, as_floats(*find(files, part.name), buffer));
  });
}

std::vector<NamedTensor> name_parts(const ParameterStore& parameters, float* values, const std::string& prefix) {
  std::vector<NamedTensor> tensors;
  for (const ParameterStore::GlobalPart& part : parameters.global_parts()) {
    tensors.push_back({prefix + part.name, Tensor(values + part.offset, DType::kF32, part.dims)});
  }
  return tensors;
}

}  // namespace mhmoe::nn
