// What `mhmoe trace` does between its files: weights and tokens of each golden decoder in, its results out, with the
// golden file's own names and shapes.
#include <unistd.h>

#include "device_under_test.h"
#include "golden/golden_check.h"
#include "train/trace.h"

namespace mhmoe::golden {
namespace {

std::vector<std::string> decoder_files() {
  std::vector<std::string> decoders;
  for (const std::string& path : golden_files()) {
    if (path.ends_with(kReleasedSuffix)) continue;
    if (SafetensorsFile(path).contains("tokens")) decoders.push_back(path);
  }
  return decoders;
}

std::string temporary(const std::string& name) {
  return (std::filesystem::temp_directory_path() / fmt::format("mhmoe_trace_{}_{}", getpid(), name)).string();
}

// Those tensors of the file that `wanted` names.
SafetensorsFile extract(const SafetensorsFile& source, const std::string& path, const auto& wanted) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : source.names()) {
    if (wanted(name)) tensors.push_back({name, source.at(name)});
  }
  write_safetensors(path, tensors);
  return SafetensorsFile(path);
}

class TraceGolden : public testing::TestWithParam<std::string> {};

TEST_P(TraceGolden, FilesInFilesOut) {
  const GoldenCase golden(GetParam());
  if (!golden.unsupported.empty()) GTEST_SKIP() << golden.name() << " skipped: needs " << golden.unsupported;
  const SafetensorsFile weights = extract(golden.inputs, temporary("weights"),
                                          [&](const std::string& name) { return golden.parameters.contains(name); });
  const SafetensorsFile tokens = extract(golden.inputs, temporary("tokens"),
                                         [](const std::string& name) { return name == "tokens" || name == "targets"; });
  const auto ctx = test::backend_under_test().create_context(0);
  const std::string path = temporary("output");
  train::write_trace(path, train::trace(*ctx, golden.config, weights, tokens, {}));

  const SafetensorsFile output(path);
  Outputs outputs;
  for (const std::string& name : output.names()) {
    outputs[name] = output.doubles(name);
    EXPECT_TRUE(output.at(name).same_shape(golden.expected.at(name))) << name << " " << output.at(name).describe();
    EXPECT_EQ(output.at(name).dtype == DType::kI64, golden.expected.at(name).dtype == DType::kI64) << name;
  }
  const auto rows = static_cast<int64_t>(golden.batch.tokens.size()) * golden.config.moe.heads;
  check(golden, outputs, reference::kSinglePrecision,
        nn::expert_capacity(golden.config.moe, golden.config.moe.capacity_factor, rows));
  for (const char* name : {"weights", "tokens", "output"}) std::filesystem::remove(temporary(name));
}

INSTANTIATE_TEST_SUITE_P(Files, TraceGolden, testing::ValuesIn(decoder_files()), test_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TraceGolden);  // a folder may hold layers alone

}  // namespace
}  // namespace mhmoe::golden
