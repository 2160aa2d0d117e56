// A file of golden vectors: what it gives (configuration, parameters, inputs) and what it expects.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <regex>

#include "core/safetensors.h"
#include "reference/model.h"

namespace mhmoe::golden {

using reference::Batch;
using reference::Matrix;
using reference::Parameters;
using reference::Shapes;

// `NAME.as_released.safetensors` holds results of the released precision (float32 islands) for the inputs of
// `NAME.safetensors` beside it.
struct GoldenCase {
  explicit GoldenCase(const std::string& path);

  std::string name() const { return std::filesystem::path(expected.path()).filename().string(); }
  const std::string& metadata(const std::string& key) const;
  int64_t integer(const std::string& key) const;

  SafetensorsFile expected;
  bool as_released;
  SafetensorsFile inputs;
  bool decoder = false;     // else one MoE layer, whose parameter names have no prefix
  std::string unsupported;  // what the program would need; empty if nothing
  nn::ModelConfig config;
  Parameters<double> parameters;
  int64_t sequences = 0;          // decoder
  Batch batch;                    // decoder
  Matrix<double> x, grad_output;  // layer
};

constexpr const char* kReleasedSuffix = ".as_released.safetensors";

inline std::string inputs_path(const std::string& path) {
  if (!path.ends_with(kReleasedSuffix)) return path;
  return path.substr(0, path.size() - std::string_view(kReleasedSuffix).size()) + ".safetensors";
}

// The folder of MHMOE_GOLDEN_DIR, or the project's own.
inline std::string golden_folder() {
  const char* folder = std::getenv("MHMOE_GOLDEN_DIR");
  return folder != nullptr && *folder != '\0' ? folder : std::string(MHMOE_SOURCE_DIR) + "/tests/golden";
}

// Every .safetensors file of the folder, sorted; none when there is no such folder.
inline std::vector<std::string> golden_files() {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder(), error)) {
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

inline const std::string& GoldenCase::metadata(const std::string& key) const {
  const auto found = inputs.metadata().find(key);
  if (found == inputs.metadata().end()) {
    fail(ExitCode::kBadData, "'{}': its metadata has no '{}'", inputs.path(), key);
  }
  return found->second;
}

inline int64_t GoldenCase::integer(const std::string& key) const {
  const std::string& text = metadata(key);
  if (text.empty() || text.size() > 9 ||
      !std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) {
    fail(ExitCode::kBadData, "'{}': metadata '{}' is '{}', not a whole number", inputs.path(), key, text);
  }
  return std::stoll(text);
}

// The number that `pattern` captures in a metadata value.
inline double captured(const GoldenCase& golden, const std::string& key, const std::string& pattern) {
  const std::string& text = golden.metadata(key);
  std::smatch match;
  if (!std::regex_search(text, match, std::regex(pattern))) {
    fail(ExitCode::kBadData, "'{}': metadata '{}' is not understood: '{}'", golden.inputs.path(), key, text);
  }
  return std::stod(match[1]);
}

inline bool has_layer_tensor(const GoldenCase& golden, const std::string& suffix) {
  return std::any_of(golden.inputs.names().begin(), golden.inputs.names().end(), [&](const std::string& name) {
    return name == suffix || (name.ends_with("." + suffix) && !name.starts_with("grad."));
  });
}

inline std::string what_it_needs(const GoldenCase& golden) {
  const auto other_than = [&](const char* key, const char* value) {
    const auto found = golden.inputs.metadata().find(key);
    return found != golden.inputs.metadata().end() && found->second != value;
  };
  if (other_than("weight_bits", "32") || other_than("input_bits", "32")) return "quantised experts (BitNet)";
  if (other_than("router", "linear")) return "the router '" + golden.metadata("router") + "'";
  return "";
}

// The MoE part of the configuration; which tensors exist tells the switches that metadata does not name.
inline void read_moe_config(GoldenCase& golden) {
  nn::MoeConfig& moe = golden.config.moe;
  moe.heads = golden.integer("heads");
  moe.experts = golden.integer("experts");
  moe.top_k = golden.integer("top_k");
  moe.expert_hidden_size = golden.integer("expert_hidden");
  moe.head_layer = has_layer_tensor(golden, "head.weight");
  moe.merge_layer = has_layer_tensor(golden, "merge.weight");
  moe.projection_bias = has_layer_tensor(golden, "head.bias") || has_layer_tensor(golden, "merge.bias");
  moe.balance_loss_weight = captured(golden, "objective", R"(\+ *([0-9.e-]+) *\*)");
  golden.config.hidden_size = golden.integer("hidden");
  golden.config.ffn.bias = has_layer_tensor(golden, "down.bias");
  if (!has_layer_tensor(golden, "gate.weight")) {
    fail(ExitCode::kBadData, "'{}': no tensor '*.gate.weight': only SwiGLU experts are understood",
         golden.inputs.path());
  }
}

inline void read_decoder_config(GoldenCase& golden) {
  nn::ModelConfig& config = golden.config;
  config.vocab_size = golden.integer("vocab");
  config.layers = golden.integer("layers");
  config.attention_heads = golden.integer("attention_heads");
  config.attention_bias = has_layer_tensor(golden, "attention.q.bias");
  config.norm_eps = captured(golden, "rms_norm_eps", "^([0-9.e-]+)$");
  config.rope_base = captured(golden, "rotary", "^half-split, base ([0-9.]+), position 0 first$");
  config.tie_embeddings = !golden.inputs.contains("lm_head.weight");
  config.ffn.hidden_size = golden.integer("ffn_hidden");
  config.moe.every_n_layers = golden.integer("moe_every");
}

inline Matrix<double> read_matrix(const SafetensorsFile& file, const std::string& name) {
  const Tensor& tensor = file.at(name);
  Matrix<double> matrix(tensor.rows(), tensor.cols());
  matrix.values = file.doubles(name);
  return matrix;
}

inline std::vector<int64_t> read_integers(const SafetensorsFile& file, const std::string& name) {
  const Tensor& tensor = file.at(name);
  const auto* values = tensor.as<int64_t>();
  return {values, values + tensor.count()};
}

inline void read_inputs(GoldenCase& golden) {
  Shapes shapes;
  if (golden.decoder) {
    shapes = reference::parameter_shapes(golden.config);
    golden.sequences = golden.inputs.at("tokens").dims[0];
    golden.batch = {.length = golden.inputs.at("tokens").cols(),
                    .tokens = read_integers(golden.inputs, "tokens"),
                    .targets = read_integers(golden.inputs, "targets")};
    MHMOE_CHECK(golden.batch.tokens.size() == golden.batch.targets.size(), "'{}': tokens and targets differ in size",
                golden.inputs.path());
  } else {
    reference::add_moe(shapes, "", golden.config);
    golden.x = read_matrix(golden.inputs, "x");
    golden.grad_output = read_matrix(golden.inputs, "grad_output");
  }
  for (const auto& [name, shape] : shapes) {
    Matrix<double> matrix = read_matrix(golden.inputs, name);
    if (matrix.rows != shape.first || matrix.cols != shape.second) {
      fail(ExitCode::kBadData, "'{}': '{}' is [{}, {}], and its metadata means [{}, {}]", golden.inputs.path(), name,
           matrix.rows, matrix.cols, shape.first, shape.second);
    }
    golden.parameters.emplace(name, std::move(matrix));
  }
}

inline GoldenCase::GoldenCase(const std::string& path)
    : expected(path), as_released(path.ends_with(kReleasedSuffix)), inputs(inputs_path(path)) {
  decoder = inputs.contains("tokens");
  unsupported = what_it_needs(*this);
  if (!unsupported.empty()) return;
  if (!decoder && !inputs.contains("x")) {
    fail(ExitCode::kBadData, "'{}' is neither a decoder (no 'tokens') nor a layer (no 'x')", inputs.path());
  }
  read_moe_config(*this);
  if (decoder) read_decoder_config(*this);
  read_inputs(*this);
}

}  // namespace mhmoe::golden
