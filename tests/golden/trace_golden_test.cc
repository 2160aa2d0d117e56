// `mhmoe trace`, and what it does between its files: weights and tokens of each golden decoder in, its results out,
// with the golden file's own names and shapes.
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "device_under_test.h"
#include "golden/golden_check.h"
#include "train/config.h"
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

// The path of a file with those tensors of the other that `wanted` names.
std::string extract(const SafetensorsFile& source, const std::string& path, const auto& wanted) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : source.names()) {
    if (wanted(name)) tensors.push_back({name, source.at(name)});
  }
  write_safetensors(path, tensors);
  return path;
}

class TraceGolden : public testing::TestWithParam<std::string> {
 protected:
  TraceGolden() : golden_(GetParam()) {}

  void SetUp() override {
    if (!golden_.unsupported.empty()) GTEST_SKIP() << golden_.name() << " skipped: needs " << golden_.unsupported;
  }
  void TearDown() override {
    for (const char* name : {"config", "weights", "tokens", "output"}) std::filesystem::remove(temporary(name));
  }

  SafetensorsReader weights() const {
    return SafetensorsReader(extract(golden_.inputs, temporary("weights"),
                                     [&](const std::string& name) { return golden_.parameters.contains(name); }));
  }
  SafetensorsFile tokens() const {
    return SafetensorsFile(extract(golden_.inputs, temporary("tokens"),
                                   [](const std::string& name) { return name == "tokens" || name == "targets"; }));
  }

  // The file of output against the golden one.
  void check_output() const {
    const SafetensorsFile output(temporary("output"));
    Outputs outputs;
    for (const std::string& name : output.names()) {
      outputs[name] = output.doubles(name);
      EXPECT_TRUE(output.at(name).same_shape(golden_.expected.at(name))) << name << " " << output.at(name).describe();
      EXPECT_EQ(output.at(name).dtype == DType::kI64, golden_.expected.at(name).dtype == DType::kI64) << name;
    }
    const nn::MoeConfig& moe = golden_.config.moe;
    const auto rows = static_cast<int64_t>(golden_.batch.tokens.size()) * moe.heads;
    check(golden_, outputs, reference::kSinglePrecision, nn::expert_capacity(moe, moe.capacity_factor, rows));
  }

  const GoldenCase golden_;
};

TEST_P(TraceGolden, FilesInFilesOut) {
  const auto ctx = test::backend_under_test().create_context(0);
  train::write_trace(temporary("output"), train::trace(*ctx, golden_.config, weights(), tokens(), {}));
  check_output();
}

// `mhmoe trace` itself, in a process of its own.
TEST_P(TraceGolden, TheProgramsFilesInFilesOut) {
  train::RunConfig config;
  config.model = golden_.config;
  config.train.precision = train::Precision::kFp32;
  std::ofstream(temporary("config")) << train::resolved_config(config);
  weights();
  tokens();
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "mhmoe";
  const std::string command = fmt::format(
      "'{}' trace --config '{}' --weights '{}' --tokens '{}' --output '{}' --device {}", program, temporary("config"),
      temporary("weights"), temporary("tokens"), temporary("output"), test::device_under_test());
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  check_output();
}

INSTANTIATE_TEST_SUITE_P(Files, TraceGolden, testing::ValuesIn(decoder_files()), test_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TraceGolden);  // a folder may hold layers alone

}  // namespace
}  // namespace mhmoe::golden
