// Safetensors files made to break their readers.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "core/safetensors.h"

namespace mhmoe {
namespace {

class HostileSafetensors : public testing::Test {
 protected:
  HostileSafetensors() : path_(fmt::format("{}/hostile-{}.safetensors", testing::TempDir(), getpid())) {}
  void TearDown() override { std::remove(path_.c_str()); }

  // The error of a file whose first 8 bytes are `length`, or "accepted".
  std::string error_of(uint64_t length, const std::string& rest, ExitCode code = ExitCode::kBadData) const {
    std::ofstream(path_, std::ios::binary) << std::string_view(reinterpret_cast<const char*>(&length), 8) << rest;
    try {
      const SafetensorsFile file(path_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      std::string message = error.what();
      EXPECT_NE(message.find(path_), std::string::npos) << message;
      EXPECT_EQ(message.find_first_of("\n\x1b"), std::string::npos) << message;
      EXPECT_LE(message.size(), 4000u);
      return message;
    }
    return "accepted";
  }
  std::string error_of(const std::string& header, size_t data_bytes) const {
    return error_of(header.size(), header + std::string(data_bytes, '\1'));
  }
  void expect_error(const std::string& header, size_t data_bytes, const std::string& part) const {
    const std::string error = error_of(header, data_bytes);
    EXPECT_NE(error.find(part), std::string::npos) << header << "\n" << error;
  }

  std::string path_;
};

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{}]}})", name, dtype, shape, offsets);
}

TEST_F(HostileSafetensors, LengthsAreCheckedBeforeTheyAreBelieved) {
  for (const uint64_t length :
       {uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7, uint64_t{100'000'001}, uint64_t{1} << 32}) {
    EXPECT_NE(error_of(length, "{}").find("header would take"), std::string::npos);
  }
  for (const uint64_t length : {uint64_t{3}, uint64_t{4096}, uint64_t{8} << 20}) {
    EXPECT_NE(error_of(length, "{}").find("truncated"), std::string::npos);
  }
  EXPECT_NE(error_of(0, "{}").find("no JSON object"), std::string::npos);
  EXPECT_NE(error_of(2, "{}junk").find("too long"), std::string::npos);
}

TEST_F(HostileSafetensors, ProductsThatWrapAreRefused) {
  // Wraps to 4 elements: the published proof of concept against a C++ reader.
  expect_error("{" + entry("a", "F32", "4194305,4194305,211106198978564", "0,16") + "}", 16, "tensor 'a': its shape");
  // Wraps to 0, with and without the dtype's size.
  expect_error("{" + entry("a", "U8", "4294967296,4294967296", "0,0") + "}", 0, "overflows 64 bits");
  expect_error("{" + entry("a", "F64", "2305843009213693952", "0,0") + "}", 0, "overflows 64 bits");
  expect_error("{" + entry("a", "F64", "2305843009213693952,2", "0,0") + "}", 0, "overflows 64 bits");
  // No wrap, but more than there is.
  expect_error("{" + entry("a", "U8", "9223372036854775807", "0,9223372036854775807") + "}", 8, "is truncated");
  expect_error("{" + entry("a", "U8", "8", "9223372036854775800,9223372036854775807") + "}", 8, "tensor 'a'");
  expect_error("{" + entry("a", "F32", "3", "0,16") + "}", 16, "do not span the 12 bytes");
}

TEST_F(HostileSafetensors, TensorsWithoutElementsMayShareABoundaryAndNothingElse) {
  const std::string a = entry("a", "U8", "8", "0,8"), c = entry("c", "U8", "2", "8,10");
  const auto with = [&](const std::string& empties) { return error_of("{" + empties + "," + c + "," + a + "}", 10); };
  EXPECT_EQ(with(entry("x", "F32", "0", "0,0") + "," + entry("y", "F32", "3,0", "8,8") + "," +
                 entry("z", "F64", "0", "8,8") + "," + entry("end", "U8", "0", "10,10")),
            "accepted");
  EXPECT_NE(with(entry("x", "F32", "0", "4,4")).find("overlaps"), std::string::npos);
  EXPECT_NE(with(entry("x", "F32", "0", "11,11")).find("hole"), std::string::npos);
  EXPECT_NE(with(entry("x", "F32", "0,5", "0,8")).find("do not span the 0 bytes"), std::string::npos);
}

TEST_F(HostileSafetensors, DTypesThatAreNotReadAreNamed) {
  for (const char* dtype : {"F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F16", "I8", "I16", "U16",
                            "U32", "U64", "BOOL", "C64", "f32", "F32 ", ""}) {
    expect_error("{" + entry("a", dtype, "8", "0,8") + "}", 8, fmt::format("tensor 'a': dtype '{}'", dtype));
  }
}

TEST_F(HostileSafetensors, MetadataHoldsStringsOnly) {
  for (const char* value : {"1", "null", "true", "[]", "{}", "1.5"}) {
    expect_error(fmt::format(R"({{"__metadata__":{{"k":{}}}}})", value), 0, "__metadata__ 'k'");
    expect_error(fmt::format(R"({{"__metadata__":{}}})", value), 0, value == std::string("{}") ? "accepted" : "header");
  }
}

TEST_F(HostileSafetensors, NamesCannotForgeLinesOrMoveTheCursor) {
  expect_error("{" + entry(R"(\u001b[2J\nerror: all is well\u009b2J)", "F16", "1", "0,2") + "}", 2,
               R"(tensor '\x1b[2J\x0aerror: all is well\u009b2J': dtype)");
  const std::string long_key(7 << 20, 'k');
  expect_error("{\"" + long_key + "\":{}}", 0, "7340032 bytes");
  expect_error(R"({"__metadata__":{")" + long_key + R"(":1}})", 0, "__metadata__");
}

TEST_F(HostileSafetensors, ProgramsInDisguiseAreNeverLoaded) {
  const auto first = [](std::string_view bytes) {
    uint64_t value = 0;
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(&value));
    return value;
  };
  for (const std::string_view start :
       {std::string_view("PK\3\4\0\0\x08\x08", 8), std::string_view("\x80\2}q\0(X\4", 8)}) {
    EXPECT_NE(error_of(first(start), "rest", ExitCode::kPermission).find("convert it"), std::string::npos);
  }
}

}  // namespace
}  // namespace mhmoe
