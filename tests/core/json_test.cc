#include "core/json.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

namespace mhmoe::json {
namespace {

Value read(const std::string& text) {
  return parse(text, "f.json", ExitCode::kConfig);
}

std::string error_of(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line";
    return error.what();
  }
  return "accepted";
}

TEST(Json, KnowsTheLineOfEveryValue) {
  const Value tree = read("{\n \"a\": 1,\n\n \"b\": {\"c\":\n  [2\n,\n3]},\n \"d\"\n:\n4\n}");
  EXPECT_EQ(tree.line, 1);
  EXPECT_EQ(tree.find("a")->line, 2);
  EXPECT_EQ(tree.find("b")->find("c")->line, 4);
  EXPECT_EQ(tree.find("b")->find("c")->items[0].line, 5);  // a number that a new line follows
  EXPECT_EQ(tree.find("b")->find("c")->items[1].line, 7);
  EXPECT_EQ(tree.find("d")->line, 8);  // where the key is
  EXPECT_EQ(tree.find("d")->where(), "f.json:8");
}

TEST(Json, KeepsKindsApart) {
  const Value tree = read(R"({"i": 3, "r": 3.0, "n": null, "b": true, "s": "3", "big": 18446744073709551615})");
  EXPECT_EQ(tree.find("i")->kind, Kind::kInteger);
  EXPECT_EQ(tree.find("i")->real, 3.0);
  EXPECT_EQ(tree.find("r")->kind, Kind::kReal);
  EXPECT_EQ(tree.find("n")->kind, Kind::kNull);
  EXPECT_EQ(tree.find("b")->kind, Kind::kBoolean);
  EXPECT_EQ(tree.find("s")->kind, Kind::kString);
  EXPECT_EQ(tree.find("big")->kind, Kind::kReal) << "an integer that int64 cannot hold is not silently wrapped";
}

TEST(Json, RefusesWhatJsonDoesNotHave) {
  for (const char* text : {"", "{", "{}x", "{} {}", "{\"a\": 1,}", "[1,]", "{'a': 1}", "{a: 1}", "{\"a\": .5}",
                           "{\"a\": 01}", "{\"a\": +1}", "// c\n{}", "{\"a\": 0x10}", "{\"a\" 1}", "\"\xff\""}) {
    EXPECT_NE(error_of(text).find("f.json:"), std::string::npos) << text;
  }
}

TEST(Json, NamesLineKeyAndWhatWasFound) {
  for (const char* word : {"NaN", "nan", "Infinity", "-Infinity", "inf", "True", "abc"}) {
    const std::string error = error_of(std::string("{\"s\": {\n\"x\": ") + word + "\n}}");
    EXPECT_NE(error.find("f.json:2: s.x: found " + std::string(word)), std::string::npos) << error;
  }
  EXPECT_NE(error_of("{\n\"x\": 1e400}").find("f.json:2: x: found 1e400"), std::string::npos);
}

TEST(Json, DuplicateKeysNameBothLines) {
  const std::string error = error_of("{\"s\": {\n\"x\": 1,\n\"y\": 2,\n\"x\": 1}}");
  EXPECT_NE(error.find("f.json:4: s.x: the key appears twice"), std::string::npos) << error;
  EXPECT_NE(error.find("line 2"), std::string::npos) << error;
  EXPECT_EQ(error_of(R"({"a": {"x": 1}, "b": {"x": 1}})"), "accepted");
}

TEST(Json, HostileTextIsRefusedAtItsLimits) {
  EXPECT_NE(error_of(std::string(1'000'000, '[')).find("64 levels"), std::string::npos);
  EXPECT_NE(error_of("\"" + std::string(2'000'000, 'a') + "\"").find("at most 1048576"), std::string::npos);
  EXPECT_NE(error_of("{\"a\": \"x\\u0000y\"}").find("NUL"), std::string::npos);
  EXPECT_NE(error_of(std::string("{}\n\0", 4)).find("f.json:2: holds the character NUL at byte 3"), std::string::npos);
  EXPECT_NE(error_of(std::string("\0{}", 3)).find("NUL"), std::string::npos);
  EXPECT_NE(error_of("{\"" + std::string(513, 'k') + "\": 1}").find("a key of 513 bytes"), std::string::npos);
  EXPECT_EQ(error_of("{\"" + std::string(512, 'k') + "\": 1}"), "accepted");
  std::string many = "[1";
  for (int i = 0; i < 65'536; ++i) many += ",1";
  EXPECT_NE(error_of(many + "]").find("more than 65536 values"), std::string::npos);
}

TEST(Json, HugeFilesAreRefusedUnread) {
  const std::string path = fmt::format("{}/mhmoe-huge-{}.json", testing::TempDir(), getpid());
  std::ofstream(path) << "{\"a\": \"";
  std::filesystem::resize_file(path, uint64_t{1} << 40);  // sparse: reading it would need a terabyte of memory
  try {
    read_file(path, ExitCode::kConfig);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), path + ": 1099511627776 bytes; at most 1048576 are read");
  }
  std::filesystem::remove(path);
}

// Whatever a key holds, the message is one line.
TEST(Json, KeysCannotBreakTheLineOfAMessage) {
  for (const char* text :
       {"{\"a\\nb\": {\"\\u001b[2J\": NaN}}", "{\"a\\nb\": 1, \"a\\nb\": 2}", "{\"a\\r\\n\": 1e400}"}) {
    const std::string error = error_of(text);
    EXPECT_NE(error, "accepted");
    EXPECT_EQ(error.find_first_of("\n\r\x1b"), std::string::npos) << error;
  }
}

TEST(Json, WritingAndReadingGivesTheSame) {
  Value tree = Value::object();
  tree.add("text", "quote \" back \\ line \n tab \t bell \x07 \xc3\xa9");
  tree.add("small", 1e-300);
  tree.add("third", 1.0 / 3.0);
  tree.add("whole", 2.0);
  tree.add("negative_zero", -0.0);
  tree.add("integer", int64_t{-9007199254740993});
  tree.add("null", Value());
  Value& list = tree.add("list", Value::array());
  for (int i = 0; i < 60; ++i) list.add(Value::object()).add("element", i % 2 == 0);
  for (const std::string& text : {to_text(tree), to_line(tree)}) {
    const Value back = read(text);
    EXPECT_EQ(to_line(back), to_line(tree));
    EXPECT_EQ(back.find("text")->text, tree.find("text")->text);
    EXPECT_EQ(back.find("third")->real, 1.0 / 3.0);
    EXPECT_TRUE(std::signbit(back.find("negative_zero")->real));
    EXPECT_EQ(back.find("integer")->integer, -9007199254740993);
  }
  EXPECT_EQ(to_line(tree).find('\n'), std::string::npos);
}

TEST(Json, NonFiniteNumbersBecomeNull) {
  Value tree = Value::array();
  tree.add(std::numeric_limits<double>::quiet_NaN());
  tree.add(-std::numeric_limits<double>::infinity());
  EXPECT_EQ(to_line(tree), "[null, null]");
}

TEST(Json, OnlyRegularFilesAreRead) {
  EXPECT_THROW(read_file("/dev/zero", ExitCode::kConfig), Error);
  EXPECT_THROW(read_file("/nonexistent.json", ExitCode::kConfig), Error);
}

}  // namespace
}  // namespace mhmoe::json
