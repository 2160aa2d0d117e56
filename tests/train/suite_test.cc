// Files that list the experiments of a comparison.
#include "train/suite.h"

#include "train/config_fixture.h"

namespace mhmoe::train {
namespace {

class SuiteTest : public ConfigTest {
 protected:
  void SetUp() override {
    ConfigTest::SetUp();
    for (const char* name : {"a", "b"}) write(fmt::format("{}.json", name), member(name));
  }
  static std::string member(const std::string& name) {
    return fmt::format(R"({{"name": "{}", "data": {{"train": [{{"path": "x"}}], "tokenizer": "bytes"}}}})", name);
  }
  Suite load_text(const std::string& text) const { return load_suite(write("s.json", text)); }

  // The message of the error of loading the suite and its members, or "accepted".
  std::string suite_error(const std::string& text, ExitCode code = ExitCode::kConfig,
                          const std::vector<std::string>& overrides = {}) const {
    try {
      load_members(load_text(text), overrides);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line: " << error.what();
      return error.what();
    }
    return "accepted";
  }
};

TEST_F(SuiteTest, MembersStandRelativeToTheFileAndKeepTheirOrder) {
  write("below/c.json", member("c"));
  const Suite suite =
      load_text(R"({"comment": ["two", "lines"], "name": "s", "members": ["b.json", "below/c.json", "a.json"]})");
  EXPECT_EQ(suite.name, "s");
  EXPECT_EQ(suite.members,
            (std::vector<std::string>{folder_ / "b.json", folder_ / "below/c.json", folder_ / "a.json"}));
  const std::vector<RunConfig> configs = load_members(suite, {});
  ASSERT_EQ(configs.size(), 3u);
  EXPECT_EQ(configs[1].name, "c");
  EXPECT_EQ(configs[1].output_dir, "runs");
}

TEST_F(SuiteTest, OverridesGoToEveryMemberAndBeatTheSuite) {
  const Suite suite = load_text(R"({"name": "s", "output_dir": "out", "members": ["a.json", "b.json"]})");
  for (const RunConfig& config : load_members(suite, {})) EXPECT_EQ(config.output_dir, "out");
  const std::vector<std::string> overrides = {"output_dir=else", "train.steps=400"};
  for (const RunConfig& config : load_members(suite, overrides)) {
    EXPECT_EQ(config.output_dir, "else");
    EXPECT_EQ(config.train.steps, 400);
  }
}

TEST_F(SuiteTest, MistakesAreNamedWithPlaceAndRemedy) {
  struct Case {
    const char* text;
    std::vector<const char*> parts;
  };
  for (const Case& c : std::vector<Case>{
           {"[]", {"s.json:1", "found an array", "expected an object"}},
           {R"({"members": ["a.json"]})", {"s.json:1", "name: missing"}},
           {R"({"name": "s"})", {"s.json:1", "members: missing"}},
           {"{\"name\": \"s\",\n\"member\": [\"a.json\"]}",
            {"s.json:2", "member: unknown key", "did you mean members?"}},
           {R"({"name": "s", "members": ["a.json"], "zebra": 1})", {"zebra: unknown key (a suite has: comment"}},
           {R"({"name": "", "members": ["a.json"]})", {"name: found \"\""}},
           {R"({"name": "s", "members": []})", {"members: found []", "a list of configuration files"}},
           {R"({"name": "s", "members": "a.json"})", {"members: found \"a.json\"", "a list"}},
           {R"({"name": "s", "members": ["a.json", 3]})", {"members[1]: found 3", "the name of a configuration"}},
           {R"({"name": "s", "members": ["a.json"], "output_dir": 5})", {"output_dir: found 5"}},
           {R"({"name": "s", "members": ["a.json"], "comment": 5})", {"comment: found 5", "a list of strings"}},
           {R"({"name": "s", "members": ["a.json", "a.json"]})", {"a.json", "run folder runs/a", "a name of its own"}},
           {R"({"name": "s", "name": "t", "members": ["a.json"]})", {"s.json:1", "name"}},
           {R"({"name": "s", "members": ["s.json"]})", {"s.json:1", "members: unknown key"}},
       }) {
    const std::string message = suite_error(c.text);
    for (const char* part : c.parts) EXPECT_TRUE(contains(message, part)) << part << " in: " << message;
  }
}

TEST_F(SuiteTest, EveryMemberIsCheckedBeforeAnyRuns) {
  const std::string missing =
      suite_error(R"({"name": "s", "members": ["a.json", "none.json"]})", ExitCode::kMissingInput);
  EXPECT_TRUE(contains(missing, "s.json:1: members[1]: no file ")) << missing;
  EXPECT_TRUE(contains(missing, "none.json")) << missing;
  write("b.json", R"({"name": "b", "train": {"stepz": 3}})");
  EXPECT_TRUE(contains(suite_error(R"({"name": "s", "members": ["a.json", "b.json"]})"), "b.json:1: train.stepz"));
  write("b.json", R"({"name": "b"})");
  const std::string no_data = suite_error(R"({"name": "s", "members": ["a.json", "b.json"]})");
  EXPECT_TRUE(contains(no_data, "b.json: data.tokenizer: missing")) << no_data;
  EXPECT_TRUE(contains(suite_error(R"({"name": "s", "members": ["a.json", "b.json"]})", ExitCode::kConfig, {"name=x"}),
                       "run folder runs/x"));
}

}  // namespace
}  // namespace mhmoe::train
