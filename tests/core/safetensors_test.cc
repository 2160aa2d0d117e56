#include "core/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

namespace mhmoe {
namespace {

class Safetensors : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / fmt::format("safetensors_{}_{}", info->name(), ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // A file of the given header and so many bytes of data.
  std::string file(const std::string& header, size_t data_bytes) const {
    const uint64_t length = header.size();
    return raw(std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\1'));
  }
  std::string raw(const std::string& content) const {
    const std::string p = path("raw.safetensors");
    std::ofstream(p, std::ios::binary) << content;
    return p;
  }
  size_t files_in_folder() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  std::filesystem::path folder_;
};

std::string error_of(const std::string& path, ExitCode code = ExitCode::kBadData) {
  try {
    SafetensorsFile file(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << "no path in: " << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "more than one line: " << error.what();
    return error.what();
  }
  return "no error";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const std::string kA = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

TEST_F(Safetensors, RoundTripKeepsEveryDTypeShapeAndMetadata) {
  std::vector<uint8_t> u8 = {1, 255, 3};
  std::vector<float> f32(24);
  std::iota(f32.begin(), f32.end(), -3.5f);
  std::vector<bfloat16> bf16 = {bfloat16(1.5f), bfloat16(-2.0f)};
  std::vector<double> f64 = {1e300, -0.1};
  std::vector<int32_t> i32 = {INT32_MIN};
  std::vector<int64_t> i64 = {-1, int64_t{1} << 40};
  double loss = 4.25;
  const std::vector<NamedTensor> tensors = {
      {"u8", {u8.data(), DType::kU8, {3}}},          {"f32", {f32.data(), DType::kF32, {2, 3, 4}}},
      {"bf16", {bf16.data(), DType::kBF16, {1, 2}}}, {"f64", {f64.data(), DType::kF64, {2}}},
      {"i32", {i32.data(), DType::kI32, {1}}},       {"i64", {i64.data(), DType::kI64, {2, 1}}},
      {"empty", {nullptr, DType::kF32, {0, 5}}},     {"loss \"\\\n", {&loss, DType::kF64, {1}}, true}};
  const std::map<std::string, std::string> metadata = {{"key", "v\"\n"}, {"", ""}};
  write_safetensors(path("x.safetensors"), tensors, metadata);
  EXPECT_EQ(files_in_folder(), 1u) << "a temporary file was left";

  const SafetensorsFile file(path("x.safetensors"));
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.names().size(), tensors.size());
  for (const auto& [name, tensor, scalar] : tensors) {
    const Tensor& read = file.at(name);
    EXPECT_EQ(read.dtype, tensor.dtype);
    EXPECT_TRUE(read.same_shape(tensor)) << name << " " << read.describe();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.data) % 8, 0u) << name;
    if (tensor.bytes() > 0) {
      EXPECT_EQ(std::memcmp(read.data, tensor.data, tensor.bytes()), 0) << name;
    }
  }
  EXPECT_EQ(file.doubles("bf16"), (std::vector<double>{1.5, -2.0}));
  EXPECT_EQ(file.doubles("i64"), (std::vector<double>{-1, 1099511627776.0}));
  EXPECT_EQ(file.doubles("u8"), (std::vector<double>{1, 255, 3}));
  EXPECT_THROW(file.at("missing"), Error);
}

TEST_F(Safetensors, WritingReplacesAWholeFileOrLeavesItAlone) {
  float one = 1, two = 2;
  const std::string target = path("x.safetensors");
  write_safetensors(target, std::vector<NamedTensor>{{"a", {&one, DType::kF32, {1}}}});
  write_safetensors(target, std::vector<NamedTensor>{{"a", {&two, DType::kF32, {1}}}});
  EXPECT_EQ(SafetensorsFile(target).doubles("a")[0], 2);
  const std::vector<NamedTensor> twice = {{"a", {&one, DType::kF32, {1}}}, {"a", {&two, DType::kF32, {1}}}};
  EXPECT_THROW(write_safetensors(target, twice), Error);
  EXPECT_EQ(SafetensorsFile(target).doubles("a")[0], 2);
  // A folder in the way of the rename: the temporary file goes.
  std::filesystem::create_directories(folder_ / "folder" / "full");
  EXPECT_THROW(write_safetensors(path("folder"), std::vector<NamedTensor>{{"a", {&one, DType::kF32, {1}}}}), Error);
  EXPECT_EQ(files_in_folder(), 2u);
}

TEST_F(Safetensors, AcceptsUnalignedDataAndAnyHeaderOrder) {
  const std::string p = file(R"({"b":{"dtype":"F64","shape":[],"data_offsets":[1,9]},)"
                             R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}  )",
                             9);
  const SafetensorsFile read(p);
  EXPECT_EQ(read.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read.at("b").describe(), "f64[1]");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(read.at("b").data) % 8, 0u);
  EXPECT_TRUE(SafetensorsFile(file("{}", 0)).names().empty());
}

TEST_F(Safetensors, MissingFilesFoldersAndTruncationAreTold) {
  error_of(path("nothing"), ExitCode::kMissingInput);
  error_of(folder_.string(), ExitCode::kMissingInput);
  EXPECT_TRUE(has(error_of(raw("1234567")), "truncated"));
  EXPECT_TRUE(has(error_of(file("{" + kA + "}", 7)), "truncated"));
  EXPECT_TRUE(has(error_of(file("{" + kA + "}", 9)), "too long"));
  const uint64_t length = 100;
  EXPECT_TRUE(has(error_of(raw(std::string(reinterpret_cast<const char*>(&length), 8) + "{}")), "truncated"));
}

TEST_F(Safetensors, HeadersOutOfBoundsAreRefused) {
  const uint64_t length = uint64_t{1} << 40;
  EXPECT_TRUE(has(error_of(raw(std::string(reinterpret_cast<const char*>(&length), 8) + "{}")), "header would take"));
  EXPECT_TRUE(has(error_of(file("{}" + std::string((8 << 20) - 1, ' '), 0)), "header would take"));
  EXPECT_EQ(error_of(file("{}" + std::string((8 << 20) - 2, ' '), 0)), "no error");
  const std::string long_name(513, 'n');
  EXPECT_TRUE(
      has(error_of(file("{\"" + long_name + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0)), "513"));
  std::string many = "{";
  for (int i = 0; i <= 65536; ++i) {
    many += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", i == 0 ? "" : ",", i);
  }
  EXPECT_TRUE(has(error_of(file(many + "}", 0)), "65536"));
}

TEST_F(Safetensors, LayoutMustBeWhole) {
  const auto two = [&](const char* b) { return error_of(file("{" + kA + ",\"b\":" + b + "}", 16)); };
  EXPECT_EQ(two(R"({"dtype":"F32","shape":[2],"data_offsets":[8,16]})"), "no error");
  EXPECT_TRUE(has(two(R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})"), "tensor 'b' begins at data byte 4"));
  EXPECT_TRUE(has(two(R"({"dtype":"F32","shape":[1],"data_offsets":[12,16]})"), "hole"));
  EXPECT_TRUE(has(two(R"({"dtype":"F32","shape":[2],"data_offsets":[8,12]})"), "tensor 'b': data_offsets"));
  EXPECT_TRUE(has(two(R"({"dtype":"F32","shape":[2],"data_offsets":[16,8]})"), "tensor 'b': data_offsets"));
  EXPECT_TRUE(has(two(R"({"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[8,8]})"), "overflows"));
}

TEST_F(Safetensors, EntriesMustBeWellFormed) {
  const auto entry = [&](const std::string& a) { return error_of(file("{\"a\":" + a + "}", 8)); };
  EXPECT_EQ(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "no error");
  EXPECT_TRUE(has(entry(R"({"dtype":"F16","shape":[4],"data_offsets":[0,8]})"), "tensor 'a': dtype 'F16'"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]})"), "tensor 'a'"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "negative"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "whole number"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"), "3 numbers"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[[2]],"data_offsets":[0,8]})"), "an array"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"), "2^63"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[2]})"), "'data_offsets' is missing"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"), "unknown key 'x'"));
  EXPECT_TRUE(has(entry(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "appears twice"));
  EXPECT_TRUE(has(entry(R"({"dtype":4,"shape":[2],"data_offsets":[0,8]})"), "a number"));
  EXPECT_TRUE(has(entry("null"), "null"));
}

TEST_F(Safetensors, TheHeaderMustBeOneJsonObjectWithoutDuplicates) {
  EXPECT_TRUE(has(error_of(file("{" + kA + "," + kA + "}", 8)), "'a' appears twice"));
  EXPECT_TRUE(has(error_of(file(R"({"__metadata__":{"k":"1","k":"2"}})", 0)), "'k' appears twice"));
  EXPECT_TRUE(has(error_of(file(R"({"__metadata__":{"k":1}})", 0)), "__metadata__ 'k'"));
  EXPECT_TRUE(has(error_of(file(R"({"__metadata__":{},"__metadata__":{}})", 0)), "appears twice"));
  for (const char* text : {"", " {}", "[]", "{", "{}}", "{\"a\":}", "{\"\xff\":{}}"}) {
    EXPECT_NE(error_of(file(text, 0)), "no error") << text;
  }
  EXPECT_NE(error_of(file(std::string("{}\0garbage", 10), 0)), "no error");
  EXPECT_NE(error_of(file(std::string(100000, '['), 0)), "no error");
  EXPECT_NE(error_of(file("{\"a\":" + std::string(100000, '['), 0)), "no error");
}

}  // namespace
}  // namespace mhmoe
