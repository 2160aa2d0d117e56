// Inputs and places that cannot be used: each one line, with the place, the remedy and the exit code.
#include <sys/stat.h>
#include <unistd.h>

#include <functional>

#include "cli/program.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

class BadInput : public ProgramTest {
 protected:
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  // Where a tmpfs can be mounted without touching anything outside: then everything runs in one shell.
  bool can_mount() const { return run_shell("unshare -Urm mount -t tmpfs none .").code == 0; }
  Outcome run_on_tmpfs(const std::string& size, const std::string& script) const {
    fs::create_directories(folder_ / "disk");
    write("script.sh", fmt::format("mount -t tmpfs -o size={} none disk\nmhmoe() {{ '{}' \"$@\"; }}\n{}\n", size,
                                   program(), script));
    return run_shell("unshare -Urm sh script.sh");
  }
};

TEST_F(BadInput, ConfigurationsAreRefusedWithLineAndRemedy) {
  const struct {
    const char* name;
    std::string text;
    std::vector<std::string> parts;
  } cases[] = {
      {"misspelt.json",
       "{\n\"train\": {\n\"learning_rate\": {\"peek\": 1}}}",
       {"misspelt.json:3: train.learning_rate.peek: unknown key; did you mean train.learning_rate.peak?"}},
      {"section.json",
       "{\"train\": {\n\"leraning_rate\": {}}}",
       {"section.json:2", "did you mean train.learning_rate?"}},
      {"range.json",
       "{\"model\": {\"moe\": {\n\"top_k\": 9, \"every_n_layers\": 1}}}",
       {"range.json:2", "9 of 8 experts"}},
      {"negative.json",
       "{\"train\": {\"learning_rate\": {\n\"peak\": -1}}}",
       {"negative.json:2", "found -1", "from 0"}},
      {"nan.json", "{\"train\": {\"learning_rate\": {\n\"peak\": NaN}}}", {"nan.json:2", "found NaN", "finite"}},
      {"huge.json", "{\"train\": {\"learning_rate\": {\n\"peak\": 1e400}}}", {"huge.json:2", "found 1e400"}},
      {"type.json", "{\"train\": {\n\"steps\": \"6\"}}", {"type.json:2", "found \"6\", expected an integer from 1"}},
      {"heads.json", "{\"model\": {\n\"attention_heads\": 5}}", {"heads.json:2", "5 heads on hidden_size 768", "try "}},
      {"twice.json", "{\"seed\": 1,\n\n\"seed\": 2}", {"twice.json:3: seed: the key appears twice", "first on line 1"}},
      {"deep.json", std::string(1'000'000, '['), {"deep.json:1", "64 levels"}},
      {"long.json",
       "{\"name\": \"" + std::string(2'000'000, 'a') + "\"}",
       {"long.json: 2000012 bytes", "at most 1048576"}},
      {"utf8.json", "{\n\"name\": \"\xff\"}", {"utf8.json:2", "UTF-8"}},
      {"nul.json", std::string("{\"name\": \"a\"}\n\0", 15), {"nul.json:2", "NUL"}},
      {"nul_in_path.json", "{\"output_dir\": \"a\\u0000b\"}", {"nul_in_path.json:1", "NUL"}},
      {"empty.json", "", {"empty.json:1", "the end of the file"}},
  };
  for (const auto& [name, text, parts] : cases) {
    write(name, text);
    expect_refused(fmt::format("train {}", name), 78, parts);
  }
}

TEST_F(BadInput, PathsThatLeadNowhereOrToNoFileAreToldInFull) {
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  expect_refused("train none.json", 66, {"none.json: cannot open: No such file", (folder_ / "none.json").string()});
  expect_refused("train tiny.json/x", 66, {"tiny.json/x: cannot open: Not a directory"});
  expect_refused("train .", 66, {".: a folder, where a file belongs"});
  expect_refused("train pipe", 66, {"pipe: not a regular file"});
  expect_refused("train ''", 66, {"cannot open"});
  expect_refused("evaluate none.safetensors", 66, {"none.safetensors"});
  expect_refused("train tiny.json --set data.tokenizer=.", 66, {".: a folder"});
  expect_refused("train tiny.json --set data.tokenizer=pipe", 66, {"pipe: not a regular file"});
}

TEST_F(BadInput, ModelsFromStrangersAreRefused) {
  const auto safetensors = [](const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
  };
  write("model.pt", std::string("PK\3\4\0\0\x08\x08 archive/data.pkl", 25));
  write("wraps.safetensors",
        safetensors(R"({"a":{"dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,16]}})",
                    std::string(16, 'x')));
  write("forged.safetensors",
        safetensors(R"({"a\u001b[2J\nerror: all is well":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", "xx"));
  expect_refused("evaluate model.pt", 77, {"model.pt", "may hold programs", "convert it"});
  expect_refused("evaluate wraps.safetensors", 65, {"wraps.safetensors", "tensor 'a'", "overflows 64 bits"});
  expect_refused("evaluate forged.safetensors", 65, {R"(tensor 'a\x1b[2J\x0aerror: all is well': dtype 'F16')"});
}

TEST_F(BadInput, FoldersThatMayNotBeWrittenAreToldAtTheStart) {
  fs::create_directories(folder_ / "locked");
  fs::permissions(folder_ / "locked", fs::perms{0555});
  std::string under;
  if (geteuid() == 0) {
    under = "setpriv --reuid=65534 --clear-groups --no-new-privs";
    if (run("--version", under).code != 0) GTEST_SKIP() << "skipped: no other user can run " << program();
  }
  const Outcome outcome = run("train tiny.json --output-dir locked/runs", under);
  EXPECT_EQ(outcome.code, 77) << outcome.err;
  expect_error_line(outcome, {"locked", "Permission denied"});
  EXPECT_TRUE(fs::is_empty(folder_ / "locked"));
  EXPECT_EQ(outcome.err.find("step 1/"), std::string::npos);
}

TEST_F(BadInput, ReadOnlyDisksAreToldAtTheStart) {
  if (!can_mount()) GTEST_SKIP() << "skipped: unshare -Urm may not mount here";
  const Outcome fresh = run_on_tmpfs("1m", "mount -o remount,ro disk; mhmoe train tiny.json --output-dir disk");
  EXPECT_EQ(fresh.code, 73) << fresh.err;
  expect_error_line(fresh, {"disk/tiny", "Read-only file system"});
  // A run that was begun when the disk could be written.
  const Outcome later =
      run_on_tmpfs("4m",
                   "mhmoe train tiny.json --output-dir disk --threads 1 --set checkpoint.every_steps=2 "
                   "--set train.steps=4 2> first.txt || exit 1\n"
                   "mount -o remount,ro disk\n"
                   "mhmoe train tiny.json --output-dir disk --threads 1 --set train.steps=4 --overwrite");
  EXPECT_EQ(later.code, 73) << later.err;
  expect_error_line(later, {"disk/tiny", "Read-only file system"});
}

// Records grow until the disk is full: the run ends with a reason, the checkpoints are whole.
TEST_F(BadInput, AFullDiskEndsTheRunAndKeepsItsCheckpoints) {
  if (!can_mount()) GTEST_SKIP() << "skipped: unshare -Urm may not mount here";
  const Outcome outcome =
      run_on_tmpfs("2m",
                   "mhmoe train tiny.json --output-dir disk --threads 1 --set train.steps=5000 --set log.every_steps=1 "
                   "--set checkpoint.every_steps=20 2> first.txt\n"
                   "echo $?\ngrep ^error first.txt >&2\n"
                   "mhmoe checkpoint verify $(ls -d disk/tiny/checkpoints/step-* | tail -n 1)");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(outcome.out.starts_with("74\n")) << outcome.out << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("error: ")) << outcome.err;
}

TEST_F(BadInput, DataThatIsCutReplacedOrRemovedWhileTrainingEndsTheRun) {
  const fs::path tokens = folder_ / "train.bin";
  const std::string whole = read_text(tokens);
  const std::pair<const char*, std::function<void()>> changes[] = {
      {"now 0", [&] { fs::resize_file(tokens, 0); }},
      {"now 100", [&] { fs::resize_file(tokens, 100); }},
      {"replaced by another file", [&] { fs::rename(folder_ / "copy.bin", tokens); }},
      {"removed", [&] { fs::remove(tokens); }},
  };
  for (const auto& [told, change] : changes) {
    SCOPED_TRACE(told);
    fs::remove_all(folder_ / "runs");
    write("train.bin", whole);
    write("copy.bin", whole);
    const pid_t child = start("train tiny.json --threads 1 --set train.steps=1000000");
    for (int i = 0; i < 3000 && read_text(folder_ / "runs/tiny/metrics.jsonl").empty(); ++i) usleep(10'000);
    change();
    EXPECT_EQ(wait_for(child), 74);
    const std::string err = read_text(folder_ / "err.txt");
    expect_error_line({74, "", err}, {"train.bin: changed while it was being read", told, "leave the files alone"});
  }
}

// Reads that fail or are interrupted, at every read of the program. Some belong to the loader of programs, which then
// ends it with 127.
TEST_F(BadInput, EveryReadMayFailOrBeInterrupted) {
  if (run("--version", "strace -f -qq -o trace.txt").code != 0) GTEST_SKIP() << "skipped: strace does not work here";
  ASSERT_EQ(run("config tiny.json", "strace -f -qq -e trace=pread64 -o trace.txt").code, 0);
  const auto reads = static_cast<int>(lines_of(read_text(folder_ / "trace.txt")).size());
  int failed = 0, went_on = 0;
  for (int k = 1; k <= reads; ++k) {
    const auto inject = [&](const char* error) {
      return run(
          "config tiny.json",
          fmt::format("strace -f -qq -o trace.txt -e trace=pread64 -e inject=pread64:error={}:when={}", error, k));
    };
    const Outcome broken = inject("EIO");
    if (broken.code == 127) continue;
    ++failed;
    EXPECT_EQ(broken.code, 74) << broken.err;
    expect_error_line(broken, {"tiny.json: cannot read ", "bytes at offset 0: Input/output error"});
    const Outcome interrupted = inject("EINTR");
    EXPECT_EQ(interrupted.code, 0) << interrupted.err;
    ++went_on;
  }
  EXPECT_GE(failed, 1);
  EXPECT_EQ(failed, went_on);
}

}  // namespace
}  // namespace mhmoe::cli
