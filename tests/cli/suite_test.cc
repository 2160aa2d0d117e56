#include <chrono>
#include <csignal>
#include <thread>

#include "cli/program.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

// A suite of two members of three steps, which save a checkpoint at each.
class SuiteCommand : public ProgramTest {
 protected:
  void SetUp() override {
    write("base.json", R"({"extends": "tiny.json", "train": {"steps": 3}, "checkpoint": {"every_steps": 1}})");
    write("one.json", R"({"extends": "base.json", "name": "one"})");
    write("two.json", R"({"extends": "base.json", "name": "two", "model": {"moe": {"every_n_layers": 0}}})");
    write("suite.json", R"({"name": "both", "members": ["one.json", "two.json"]})");
    // A python3 that notes its arguments.
    write("bin/python3",
          "#!/bin/sh\n[ \"$1\" != -c ] || exit 0\nprintf '%s\\n' \"$@\" > called.txt\nexit ${REPORT_EXIT-0}\n");
    fs::permissions(folder_ / "bin/python3", fs::perms::owner_all);
    path_ = std::getenv("PATH");
    setenv("PATH", ((folder_ / "bin").string() + ":" + path_).c_str(), 1);
  }
  void TearDown() override { setenv("PATH", path_.c_str(), 1); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  std::string text(const std::string& name) const { return read_text(folder_ / name); }

  std::string path_;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(SuiteCommand, TrainsEveryMemberAndPrintsOneTable) {
  const Outcome outcome = run("suite suite.json --threads 1 --set seed=3 --output-dir out");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "suite both: member 1/2: one\n")) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "suite both: member 2/2: two | 1 done in 0:0")) << outcome.err;
  for (const char* name : {"one", "two"}) {
    const std::string log = text(fmt::format("out/{}/log.txt", name));
    EXPECT_TRUE(contains(log, "step 3/3")) << name;
    EXPECT_FALSE(contains(log, "suite both")) << "a member's log is its own";
    EXPECT_TRUE(contains(text(fmt::format("out/{}/config.json", name)), "\"seed\": 3")) << name;
  }
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 3u) << outcome.out;
  for (const char* column : {"held_out perplexity", "bits/byte", "parameters", "active", "FLOPs/token", "tokens/s"}) {
    EXPECT_TRUE(contains(lines[0], column)) << column << " in " << lines[0];
  }
  EXPECT_TRUE(lines[1].starts_with("one ") && lines[2].starts_with("two ")) << outcome.out;
  EXPECT_EQ(lines[1].size(), lines[2].size());
}

TEST_F(SuiteCommand, GoesOnWithWhatIsUnfinished) {
  ASSERT_EQ(run("suite suite.json --threads 1 --output-dir whole").code, 0);
  fs::copy(folder_ / "whole", folder_ / "cut", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  // As if the second member had been killed in its third step.
  fs::remove_all(folder_ / "cut/two/checkpoints/step-00000003");
  const std::string metrics = text("cut/one/metrics.jsonl");
  const Outcome resumed = run("suite suite.json --threads 1 --output-dir cut");
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(text("cut/one/metrics.jsonl"), metrics);
  EXPECT_FALSE(contains(resumed.err, "step 2/3")) << "what is done is not done again: " << resumed.err;
  const std::string model = "two/checkpoints/step-00000003/model-00001-of-00001.safetensors";
  ASSERT_TRUE(fs::exists(folder_ / "cut" / model));
  EXPECT_EQ(text("cut/" + model), text("whole/" + model));

  const Outcome again = run("suite suite.json --threads 1 --output-dir cut");
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_FALSE(contains(again.err, "step 3/3 | loss")) << again.err;
  EXPECT_EQ(lines_of(again.out).size(), 3u) << "the table is of all members, also of those finished before";
}

TEST_F(SuiteCommand, SignalStopsTheWholeSuite) {
  const pid_t child = start("suite suite.json --threads 1 --set train.steps=100000 --set checkpoint.every_steps=0");
  for (int i = 0; i < 3000 && text("runs/one/metrics.jsonl").empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child), 75) << text("err.txt");
  EXPECT_TRUE(contains(text("err.txt"), "runs/one: stopped by SIGTERM")) << text("err.txt");
  EXPECT_EQ(text("out.txt"), "");
  EXPECT_FALSE(fs::exists(folder_ / "runs/two"));
}

TEST_F(SuiteCommand, MemberThatFailsStopsItWithItsError) {
  write("two.json", R"({"extends": "base.json", "name": "two", "data": {"train": [{"path": "absent"}]}})");
  const Outcome outcome = run("suite suite.json --threads 1");
  EXPECT_EQ(outcome.code, 66) << outcome.err;
  EXPECT_TRUE(contains(lines_of(outcome.err).back(), "absent")) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

TEST_F(SuiteCommand, FolderOfAnotherRunIsSeenBeforeAnyMemberRuns) {
  ASSERT_EQ(run("train two.json --threads 1 --set train.optimizer.weight_decay=0.7").code, 0);
  const Outcome outcome = run("suite suite.json --threads 1");
  EXPECT_EQ(outcome.code, 78) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "train.optimizer.weight_decay: 0.7")) << outcome.err;
  EXPECT_FALSE(fs::exists(folder_ / "runs/one"));
}

TEST_F(SuiteCommand, DryRunShowsWhatItWouldCost) {
  const Outcome outcome = run("suite suite.json --dry-run --set train.batch_tokens=64");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 4u) << outcome.out;
  for (const char* column : {"member", "steps", "tokens", "parameters", "active", "FLOPs/token"}) {
    EXPECT_TRUE(contains(lines[0], column)) << column;
  }
  EXPECT_TRUE(contains(lines[1], "one         3") && contains(lines[1], "192")) << lines[1];
  EXPECT_TRUE(lines[3].starts_with("all ") && contains(lines[3], "384")) << lines[3];
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

// The suite's file may come from a stranger: no script near it is run.
TEST_F(SuiteCommand, ReportIsDrawnByThisSourceTreesScript) {
  write("scripts/report.py", "planted");
  const Outcome outcome = run("suite suite.json --threads 1");
  setenv("REPORT_EXIT", "5", 1);
  const Outcome failed = run("suite suite.json --threads 1");
  unsetenv("REPORT_EXIT");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "report: runs/report/index.html\n")) << outcome.err;
  const std::vector<std::string> called = lines_of(text("called.txt"));
  ASSERT_EQ(called.size(), 7u);
  EXPECT_TRUE(fs::equivalent(called[0], MHMOE_SOURCE_DIR "/scripts/report.py")) << called[0];
  EXPECT_EQ((std::vector<std::string>(called.begin() + 1, called.end())),
            (std::vector<std::string>{"runs/one", "runs/two", "--output", "runs/report", "--title", "both"}));
  EXPECT_EQ(failed.code, 0) << "the runs are done: " << failed.err;
  EXPECT_TRUE(contains(failed.err, "no report: report.py ended with 5; by hand: ")) << failed.err;
}

// While it is validated at its end, a run does not look for signals any more: the suite does.
TEST_F(SuiteCommand, SignalInAMembersLastStepStopsItToo) {
  const pid_t child = start(
      "suite suite.json --threads 1 --set train.steps=1 --set train.learning_rate.warmup_steps=0 --set "
      "evaluation.tokens=2000000000");
  for (int i = 0; i < 3000 && text("runs/one/log.txt").empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child), 75) << text("err.txt");
  EXPECT_FALSE(fs::exists(folder_ / "runs/two"));
}

TEST_F(SuiteCommand, BadFilesAreNamedInOneLine) {
  write("wrong.json", "{\"name\": \"both\",\n\"membres\": [\"one.json\"]}");
  write("empty.json", R"({"name": "both", "members": []})");
  write("gone.json", R"({"name": "both", "members": ["one.json", "three.json"]})");
  struct Fault {
    const char* arguments;
    int code;
    std::vector<std::string> parts;
  };
  for (const Fault& fault : std::vector<Fault>{
           {"suite", 64, {"FILE"}},
           {"suite none.json", 66, {"none.json"}},
           {"suite wrong.json", 78, {"wrong.json:2: membres: unknown key; did you mean members?"}},
           {"suite empty.json", 78, {"empty.json:1: members: found []"}},
           {"suite gone.json", 66, {"gone.json:1: members[1]: no file \"three.json\""}},
           {"suite suite.json --set train.stesp=3", 78, {"train.steps"}},
           {"suite suite.json --set name=x", 78, {"runs/x", "a name of its own"}},
       }) {
    const Outcome outcome = run(fault.arguments);
    EXPECT_EQ(outcome.code, fault.code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    ASSERT_EQ(lines_of(outcome.err).size(), 1u) << outcome.err;
    for (const std::string& part : fault.parts) EXPECT_TRUE(contains(outcome.err, part)) << part << "\n" << outcome.err;
    EXPECT_FALSE(fs::exists(folder_ / "runs"));
  }
}

}  // namespace
}  // namespace mhmoe::cli
