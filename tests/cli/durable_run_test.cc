// Runs that are stopped, killed and gone on with.
#include <chrono>
#include <csignal>
#include <thread>

#include "cli/program.h"
#include "core/json.h"
#include "train/checkpoint.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

class DurableRun : public ProgramTest {
 protected:
  fs::path run_path(const std::string& output) const { return folder_ / output / "tiny"; }

  Outcome train(const std::string& output, const std::string& arguments = "") const {
    return run(fmt::format("train tiny.json --threads 1 --output-dir {} {} {}", output, kCheckpoints, arguments));
  }

  // Until the run has written a record.
  void await_record(const std::string& output) const {
    for (int i = 0; i < 3000; ++i) {
      if (!read_text(run_path(output) / "metrics.jsonl").empty()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << "no record in half a minute: " << read_text(folder_ / "err.txt");
  }

  // Everything of a run that does not tell the time.
  std::vector<std::string> results(const std::string& output, int64_t last_step) const {
    const fs::path checkpoint = run_path(output) / fmt::format("checkpoints/step-{:08}", last_step);
    std::vector<std::string> all = {read_text(checkpoint / "model-00001-of-00001.safetensors"),
                                    read_text(checkpoint / "optimizer-00001-of-00001.safetensors"),
                                    read_text(run_path(output) / "routing.jsonl")};
    EXPECT_GT(all[0].size(), 1000U) << checkpoint;
    for (const std::string& line : lines_of(read_text(run_path(output) / "metrics.jsonl"))) {
      json::Value record = json::parse(line, "metrics.jsonl", ExitCode::kBadData);
      std::erase_if(record.items, [](const json::Value& item) {
        return item.key == "seconds" || item.key == "train/tokens_per_second" || item.key == "train/mfu";
      });
      all.push_back(json::to_line(record));
    }
    for (const std::string& row : lines_of(read_text(run_path(output) / "perplexity.csv"))) {
      const size_t tokens = row.find(',', row.find(',') + 1), flops = row.find(',', tokens + 1);
      all.push_back(row.substr(0, flops) + row.substr(row.find(',', flops + 1)));
    }
    // The runs' identifiers differ, and are in the files.
    const std::string id = train::Checkpoint(checkpoint.string()).run_id();
    for (std::string& text : all) {
      for (size_t at = text.find(id); at != std::string::npos; at = text.find(id)) text.replace(at, id.size(), "ID");
    }
    return all;
  }

  static constexpr const char* kCheckpoints =
      "--set checkpoint.every_steps=1 --set checkpoint.keep_every_steps=1 --set log.routing_every_steps=2";
};

TEST_F(DurableRun, GoingOnFromAnyStepGivesTheBytesOfNeverStopping) {
  ASSERT_EQ(train("whole").code, 0);
  const std::vector<std::string> expected = results("whole", 6);
  for (int64_t step = 1; step < 6; ++step) {
    const std::string output = fmt::format("from_{}", step);
    fs::copy(folder_ / "whole", folder_ / output, fs::copy_options::recursive);
    for (int64_t later = step + 1; later <= 6; ++later) {
      fs::remove_all(run_path(output) / fmt::format("checkpoints/step-{:08}", later));
    }
    const Outcome outcome = train(output);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.err.find(fmt::format("step-{:08}, after step {} of 6", step, step)), std::string::npos);
    EXPECT_EQ(results(output, 6), expected) << "from step " << step;
  }
}

TEST_F(DurableRun, TheSameAcrossStepsThatTheSpikeGuardRefuses) {
  // Without learning every second step is above the median.
  const char* guarded =
      "--set train.steps=40 --set evaluation.every_steps=40 --set train.learning_rate.peak=0 "
      "--set train.learning_rate.final=0 --set train.spike_guard.threshold=1e-6 --set train.max_refused_steps=100";
  ASSERT_EQ(train("whole", guarded).code, 0);
  const std::vector<std::string> expected = results("whole", 40);
  fs::copy(folder_ / "whole", folder_ / "again", fs::copy_options::recursive);
  for (int64_t later = 25; later <= 40; ++later) {
    fs::remove_all(run_path("again") / fmt::format("checkpoints/step-{:08}", later));
  }
  ASSERT_EQ(train("again", guarded).code, 0);
  EXPECT_EQ(results("again", 40), expected);
  EXPECT_NE(read_text(run_path("again") / "metrics.jsonl").find("\"refused\": \"spike\""), std::string::npos);
}

// In bf16 the weights' copies are made anew; in blocking saves nothing else changes.
TEST_F(DurableRun, SameInBf16AndWithBlockingSaves) {
  const char* bf16 = "--set train.precision=bf16";
  ASSERT_EQ(train("whole", bf16).code, 0);
  const std::vector<std::string> expected = results("whole", 6);
  fs::copy(folder_ / "whole", folder_ / "again", fs::copy_options::recursive);
  for (int64_t later = 4; later <= 6; ++later) {
    fs::remove_all(run_path("again") / fmt::format("checkpoints/step-{:08}", later));
  }
  ASSERT_EQ(train("again", fmt::format("{} --set checkpoint.asynchronous=false", bf16)).code, 0);
  EXPECT_EQ(results("again", 6), expected);
}

TEST_F(DurableRun, EachSignalSavesAndAsksToBeStartedAgain) {
  const char* steps = "--set train.steps=500 --set evaluation.every_steps=500 --set checkpoint.every_steps=0";
  ASSERT_EQ(train("whole", steps).code, 0);
  const std::vector<std::string> expected = results("whole", 500);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const std::string output = fmt::format("signal_{}", signal);
    const pid_t child =
        start(fmt::format("train tiny.json --threads 1 --output-dir {} {} {}", output, kCheckpoints, steps));
    await_record(output);
    kill(child, signal);
    ASSERT_EQ(wait_for(child), 75) << read_text(folder_ / "err.txt");
    const json::Value status = json::read_file((run_path(output) / "status.json").string(), ExitCode::kBadData);
    EXPECT_EQ(status.find("state")->text, "stopped");
    EXPECT_EQ(status.find("exit_code")->integer, 75);
    EXPECT_NE(status.find("message")->text.find(fmt::format("SIG{}", sigabbrev_np(signal))), std::string::npos);
    const int64_t step = status.find("step")->integer;
    EXPECT_LT(step, 500);
    EXPECT_TRUE(fs::exists(run_path(output) / fmt::format("checkpoints/step-{:08}", step)));
    ASSERT_EQ(train(output, steps).code, 0);
    EXPECT_EQ(results(output, 500), expected) << signal;
  }
}

TEST_F(DurableRun, KilledAtAnyMomentItGoesOnToTheSameBytes) {
  const char* steps = "--set train.steps=60 --set evaluation.every_steps=20";
  ASSERT_EQ(train("whole", steps).code, 0);
  const std::vector<std::string> expected = results("whole", 60);
  for (int attempt = 0; attempt < 100; ++attempt) {
    const pid_t child =
        start(fmt::format("train tiny.json --threads 1 --output-dir killed {} {}", kCheckpoints, steps));
    std::this_thread::sleep_for(std::chrono::milliseconds(40 + 30 * attempt));
    kill(child, SIGKILL);
    const int code = wait_for(child);
    ASSERT_TRUE(code == 0 || code == 128 + SIGKILL) << read_text(folder_ / "err.txt");
    if (code == 0) break;
  }
  EXPECT_EQ(results("killed", 60), expected);
}

TEST_F(DurableRun, WhatAKillLeavesBeforeTheFirstFileIsNoRun) {
  fs::create_directories(run_path("runs"));
  for (const char* name : {"lock", "config.json.tmp-1-2", "status.json.tmp-1-2"}) {
    std::ofstream(run_path("runs") / name) << "{";
  }
  ASSERT_EQ(train("runs").code, 0);
  EXPECT_FALSE(fs::exists(run_path("runs") / "config.json.tmp-1-2"));
  fs::create_directories(run_path("foreign"));
  std::ofstream(run_path("foreign") / "thesis.tex") << "x";
  EXPECT_EQ(train("foreign").code, 73);
}

TEST_F(DurableRun, ASecondProcessIsRefused) {
  const pid_t child = start(fmt::format("train tiny.json --threads 1 --output-dir runs --set train.steps=100000"));
  await_record("runs");
  const Outcome second = run("train tiny.json --threads 1 --set train.steps=100000");
  EXPECT_EQ(second.code, 73);
  EXPECT_NE(second.err.find(fmt::format("process {} on ", child)), std::string::npos) << second.err;
  EXPECT_EQ(run("train tiny.json --threads 1 --overwrite").code, 73);
  kill(child, SIGKILL);
  EXPECT_EQ(wait_for(child), 128 + SIGKILL);
  EXPECT_EQ(run("train tiny.json --threads 1 --overwrite").code, 0) << "the lock outlived its process";
}

// The shard is one block, so that nothing is left to take the place of what is skipped.
TEST_F(DurableRun, WeightsThatAreNotFiniteNeverReplaceAGoodCheckpoint) {
  // With an eps that is 0 in single precision, rows of the embedding that a step did not use become 0 / 0.
  const Outcome broken = train("branch", "--set model.tie_embeddings=false --set train.optimizer.eps=1e-300");
  EXPECT_EQ(broken.code, 80) << broken.err;
  EXPECT_NE(broken.err.find("step 1: embed.weight holds values that are not finite"), std::string::npos) << broken.err;
  EXPECT_FALSE(train::newest_checkpoint((run_path("branch") / "checkpoints").string()).has_value());
}

TEST_F(DurableRun, OverwriteDeletesNothingButARun) {
  ASSERT_EQ(train("runs").code, 0);
  const fs::path checkpoint = run_path("runs") / "checkpoints/step-00000004";
  EXPECT_EQ(train("runs", "--overwrite --resume " + checkpoint.string()).code, 64);
  EXPECT_TRUE(fs::exists(checkpoint));
  fs::create_directories(run_path("foreign") / "checkpoints/precious");
  std::ofstream(run_path("foreign") / "config.json") << R"({"architectures": ["LlamaForCausalLM"]})";
  EXPECT_EQ(train("foreign", "--overwrite").code, 73);
  EXPECT_TRUE(fs::exists(run_path("foreign") / "checkpoints/precious"));
  EXPECT_TRUE(fs::exists(run_path("foreign") / "config.json"));
}

TEST_F(DurableRun, LostRecordsDoNotKeepItFromGoingOn) {
  ASSERT_EQ(train("whole").code, 0);
  fs::copy(folder_ / "whole", folder_ / "cut", fs::copy_options::recursive);
  for (const char* name : {"checkpoints/step-00000006", "metrics.jsonl", "routing.jsonl", "tensorboard"}) {
    fs::remove_all(run_path("cut") / name);
  }
  const Outcome outcome = train("cut");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.err.find("metrics.jsonl: holds 0 bytes"), std::string::npos) << outcome.err;
  EXPECT_EQ(results("cut", 6)[0], results("whole", 6)[0]);
}

TEST_F(DurableRun, DamagedTextEndsIt) {
  std::fstream(folder_ / "train.bin", std::ios::in | std::ios::out | std::ios::binary).seekp(100).put('X');
  const Outcome stopped = train("stopped");
  EXPECT_EQ(stopped.code, 65);
  EXPECT_NE(stopped.err.find("train.bin: block 0"), std::string::npos) << stopped.err;
  EXPECT_EQ(stopped.err.find("on_bad_block"), std::string::npos);
  const Outcome skipped = train("skipped", "--set data.on_bad_block=skip");
  EXPECT_EQ(skipped.code, 65);
  EXPECT_NE(skipped.err.find("data.on_bad_block is skip"), std::string::npos) << skipped.err;
  const json::Value status = json::read_file((run_path("stopped") / "status.json").string(), ExitCode::kBadData);
  EXPECT_EQ(status.find("state")->text, "failed");
  EXPECT_EQ(status.find("exit_code")->integer, 65);
}

TEST_F(DurableRun, FinishedRunsStayAsTheyAre) {
  ASSERT_EQ(train("runs").code, 0);
  const std::string metrics = read_text(run_path("runs") / "metrics.jsonl");
  const Outcome again = train("runs");
  EXPECT_EQ(again.code, 0);
  EXPECT_NE(again.err.find("finished already"), std::string::npos);
  EXPECT_NE(again.out.find("held_out"), std::string::npos) << "the table of the last validation";
  EXPECT_EQ(read_text(run_path("runs") / "metrics.jsonl"), metrics);
}

// The run's own newest checkpoint may be named too, in each way that a person may name it.
TEST_F(DurableRun, TheRunsOwnNewestCheckpointMayBeNamed) {
  ASSERT_EQ(train("runs").code, 0);
  const std::string newest = "runs/tiny/checkpoints/step-00000006";
  for (const std::string& named : {std::string("runs/tiny"), std::string("runs/tiny/checkpoints/"), newest}) {
    const Outcome outcome = train("runs", "--resume " + named);
    EXPECT_EQ(outcome.code, 0) << named << ": " << outcome.err;
    EXPECT_NE(outcome.err.find("finished already"), std::string::npos) << named;
  }
  fs::create_directory_symlink(folder_ / newest, folder_ / "link");
  EXPECT_EQ(train("runs", "--resume link").code, 77);
  std::fstream(folder_ / newest / "model-00001-of-00001.safetensors", std::ios::in | std::ios::out | std::ios::binary)
      .seekp(-1, std::ios::end)
      .put('\x55');
  const Outcome damaged = train("runs", "--resume " + newest);
  EXPECT_EQ(damaged.code, 65) << "not an older one when this one was named";
  EXPECT_NE(damaged.err.rfind("is damaged: checksum"), std::string::npos) << damaged.err;
}

TEST_F(DurableRun, ABranchBeginsFromAnotherRunsCheckpoint) {
  ASSERT_EQ(train("runs").code, 0);
  const std::string from = "--resume runs/tiny/checkpoints/step-00000004";
  EXPECT_EQ(train("runs", from).code, 73) << "steps 5 and 6 of the run would be left in place";
  const Outcome branch = train("branch", from);
  ASSERT_EQ(branch.code, 0) << branch.err;
  EXPECT_EQ(results("branch", 6)[0], results("runs", 6)[0]);
  fs::remove_all(run_path("branch") / "checkpoints/step-00000006");
  EXPECT_EQ(train("branch", from).code, 0) << "the same command, as a scheduler gives it again";
  EXPECT_EQ(results("branch", 6)[0], results("runs", 6)[0]);
  EXPECT_EQ(train("other", from + " --set train.optimizer.beta1=0.8").code, 78);
  EXPECT_EQ(train("missing", "--resume runs/tiny/checkpoints/step-00000009").code, 66);
}

TEST_F(DurableRun, StepsRefusedInARowEndItWithTheirOwnCode) {
  // Without learning every second step is above the median: a threshold this small takes each of these for a spike.
  const Outcome spikes =
      train("spikes",
            "--set train.steps=200 --set train.learning_rate.peak=0 --set train.learning_rate.final=0 "
            "--set train.spike_guard.threshold=1e-6 --set train.max_refused_steps=3");
  EXPECT_EQ(spikes.code, 80) << spikes.err;
  EXPECT_NE(spikes.err.find("3 steps in a row were refused"), std::string::npos) << spikes.err;
  // With an eps that is 0 in single precision, rows of the embedding that a step did not use become 0 / 0.
  const Outcome nans = train("nans",
                             "--set checkpoint.every_steps=0 --set train.optimizer.eps=1e-300 --set "
                             "model.tie_embeddings=false --set train.max_refused_steps=4");
  EXPECT_EQ(nans.code, 80) << nans.err;
  EXPECT_NE(nans.err.find("first in weight."), std::string::npos) << nans.err;
  const json::Value status = json::read_file((run_path("nans") / "status.json").string(), ExitCode::kBadData);
  EXPECT_EQ(status.find("state")->text, "failed");
  EXPECT_EQ(status.find("exit_code")->integer, 80);
  int refused = 0;
  for (const std::string& line : lines_of(read_text(run_path("nans") / "metrics.jsonl"))) {
    const json::Value record = json::parse(line, "metrics.jsonl", ExitCode::kBadData);
    if (const json::Value* reason = record.find("refused")) {
      EXPECT_EQ(reason->text, "not finite");
      EXPECT_EQ(record.find("refused_in_a_row")->integer, ++refused);
      EXPECT_EQ(record.find("first_bad_tensor")->text.substr(0, 7), "weight.");
    }
  }
  EXPECT_EQ(refused, 4);
}

}  // namespace
}  // namespace mhmoe::cli
