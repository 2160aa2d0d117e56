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

// The file that holds the tensor; null if none does.
const SafetensorsReader* find(std::span<const SafetensorsReader> files, const std::string& name) {
  const auto found = std::ranges::find_if(files, [&](const SafetensorsReader& file) { return file.contains(name); });
  return found == files.end() ? nullptr : &*found;
}

std::string paths_of(std::span<const SafetensorsReader> files) {
  std::string paths;
  for (const SafetensorsReader& file : files) paths += (paths.empty() ? "" : ", ") + file.path();
  return paths;
}

void check_names_and_shapes(const ParameterStore& parameters, std::span<const std::string> prefixes,
                            std::span<const SafetensorsReader> files) {
  std::vector<std::string> missing, unexpected, wrong;
  std::set<std::string> expected;
  for (const std::string& prefix : prefixes) {
    for (const ParameterStore::GlobalPart& part : parameters.global_parts()) {
      const std::string name = prefix + part.name;
      expected.insert(name);
      const SafetensorsReader* file = find(files, name);
      if (file == nullptr) {
        missing.push_back(name);
        continue;
      }
      const Tensor& found = file->at(name);
      const bool readable = found.dtype == DType::kF32 || found.dtype == DType::kF64;
      if (!readable || !std::ranges::equal(found.shape(), part.dims)) {
        wrong.push_back(fmt::format("{} is {}, expected {}", name, found.describe(),
                                    Tensor(nullptr, DType::kF32, part.dims).describe()));
      }
    }
  }
  for (const SafetensorsReader& file : files) {
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

// Reads tensors one after another into the same memory: fresh pages would cost more than reading does.
class ValueReader {
 public:
  explicit ValueReader(std::span<const SafetensorsReader> files) : files_(files) {}

  // The elements as f32, good until the next call.
  const float* read(const std::string& name) {
    const SafetensorsReader& file = *find(files_, name);
    const auto count = static_cast<size_t>(file.at(name).count());
    const auto grow = [&](auto& buffer) { buffer.resize(std::max(buffer.size(), count)); };
    grow(floats_);
    if (file.at(name).dtype == DType::kF32) {
      file.read(name, floats_.data());
    } else {
      grow(doubles_);
      file.read(name, doubles_.data());
      for (size_t i = 0; i < count; ++i) floats_[i] = static_cast<float>(doubles_[i]);
    }
    return floats_.data();
  }

 private:
  std::span<const SafetensorsReader> files_;
  std::vector<float> floats_;
  std::vector<double> doubles_;
};

}  // namespace

void load_owned_vectors(Context& ctx, const ParameterStore& parameters, std::span<const OwnedVector> vectors,
                        std::span<const SafetensorsReader> files) {
  std::vector<std::string> prefixes;
  for (const OwnedVector& vector : vectors) prefixes.push_back(vector.prefix);
  check_names_and_shapes(parameters, prefixes, files);
  ValueReader reader(files);
  for (const OwnedVector& vector : vectors) {
    for (const ParameterStore::OwnedPiece& piece : parameters.owned_pieces()) {
      const float* values = reader.read(vector.prefix + piece.part->name);
      ctx.upload(vector.owned.slice(piece.state_begin, piece.count), values + piece.part_begin);
    }
  }
}

void load_parameters(Context& ctx, ParameterStore& parameters, std::span<const SafetensorsReader> files) {
  const std::string no_prefix;
  check_names_and_shapes(parameters, {&no_prefix, 1}, files);
  ValueReader reader(files);
  parameters.visit([&](const Parameter& parameter, const ParameterPart& part) {
    parameters.set_part(ctx, parameter, part, reader.read(part.name));
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
