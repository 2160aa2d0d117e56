#include "train/checkpoint_fixture.h"

#include "cli/program.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Checkpoints of steps 1 to 3 in run/, and in other/ those of a run that went another way after step 2.
class CheckpointCommands : public ProgramTest {
 protected:
  CheckpointCommands() {
    for (int64_t step = 1; step <= 3; ++step) {
      for (const std::string run : {"run", "other"}) {
        train::Snapshot snapshot = train::make_snapshot(step, run == "other" && step == 3 ? 1 : 0, run);
        if (run == "other") snapshot.config.replace(snapshot.config.find("0.001"), 5, "0.002");
        snapshot.model[0].name = "embed.\x1b[2Jweight";
        write_checkpoint((folder_ / run / "checkpoints").string(), snapshot);
      }
    }
  }
  std::string model(int step) const {
    return (folder_ / fmt::format("run/checkpoints/step-{:08}/model-00001-of-00001.safetensors", step)).string();
  }
};

TEST_F(CheckpointCommands, VerifySaysOneLineForEachAndNamesWhatIsBroken) {
  for (const char* path : {"run", "run/", "run/checkpoints"}) {
    const Outcome good = run(fmt::format("checkpoint verify {}", path));
    EXPECT_EQ(good.code, 0) << good.err;
    EXPECT_EQ(lines_of(good.out).size(), 3u) << good.out;
    EXPECT_TRUE(has(good.out, "step-00000003: good: step 3 of run run, 6 tensors")) << good.out;
  }
  std::string bytes = train::read_bytes(model(2));
  bytes[bytes.size() - 1] ^= 1;
  train::write_bytes(model(2), bytes);
  const Outcome all = run("checkpoint verify run");
  EXPECT_EQ(all.code, 65);
  EXPECT_EQ(lines_of(all.out).size(), 3u) << all.out;
  EXPECT_TRUE(has(all.out, "step-00000002: NOT GOOD") && has(all.out, "'final_norm.weight' is damaged")) << all.out;
  EXPECT_TRUE(has(all.err, "1 of 3 checkpoints not good")) << all.err;
  EXPECT_EQ(run("checkpoint verify run/checkpoints/step-00000003/").code, 0);
  EXPECT_EQ(run("checkpoint verify run/checkpoints/step-00000002").code, 65);
  EXPECT_EQ(run("checkpoint verify run/checkpoints/step-00000009").code, 66);
  EXPECT_EQ(run("checkpoint verify train").code, 66);
  EXPECT_EQ(run("checkpoint").code, 64);
}

TEST_F(CheckpointCommands, InspectPrintsWhatTheManifestSays) {
  const Outcome outcome = run("checkpoint inspect run");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {"step        3\n", "run         run\n", "parameters  16\n", "train.steps: ", " | 100\n",
                           "run_hash = \"0000000000000bb8\"", "final_norm.weight", "moment2.final_norm.weight", "[4]",
                           "embed.\\u001b[2Jweight"}) {
    EXPECT_TRUE(has(outcome.out, part)) << part << " in\n" << outcome.out;
  }
  EXPECT_FALSE(has(outcome.out, "\x1b"));
  train::write_bytes(model(1), train::read_bytes(model(2)));
  EXPECT_EQ(run("checkpoint inspect run/checkpoints/step-00000001").code, 0);  // its weights are not looked at
}

TEST_F(CheckpointCommands, ExportWritesAPlainModelFile) {
  const Outcome outcome = run("checkpoint export run out/model.safetensors");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const SafetensorsFile file((folder_ / "out/model.safetensors").string());
  EXPECT_EQ(file.names().size(), 2u);
  EXPECT_EQ(file.doubles("final_norm.weight")[1], train::make_snapshot(3).storage[1][1]);
  EXPECT_EQ(file.metadata().at("format"), "mhmoe");
  EXPECT_TRUE(has(file.metadata().at("config"), "\"name\": \"tiny\""));
  EXPECT_EQ(run("checkpoint export run out/model.safetensors").code, 73);
  const Outcome folder = run("checkpoint export run out --overwrite");
  EXPECT_EQ(folder.code, 73);
  EXPECT_TRUE(has(folder.err, "out: is a folder; give the file to write, such as out/model.safetensors")) << folder.err;
  EXPECT_EQ(run("checkpoint export run/checkpoints/step-00000001 out/model.safetensors --overwrite").code, 0);
  EXPECT_EQ(SafetensorsFile((folder_ / "out/model.safetensors").string()).doubles("final_norm.weight")[1],
            train::make_snapshot(1).storage[1][1]);
}

TEST_F(CheckpointCommands, AFullDiskIsAnErrorOfEveryCommandThatPrints) {
  for (const char* command : {"checkpoint verify run", "checkpoint inspect run", "checkpoint compare run other",
                              "config tiny.json", "config --schema", "plan tiny.json"}) {
    const Outcome outcome = run(fmt::format("{} > /dev/full", command));
    EXPECT_EQ(outcome.code, 74) << command << outcome.err;
    EXPECT_TRUE(has(outcome.err, "error: standard output: cannot write: ")) << command << outcome.err;
  }
}

TEST_F(CheckpointCommands, CompareSaysWhereTwoRunsPart) {
  const Outcome apart = run("checkpoint compare run other");
  EXPECT_EQ(apart.code, 0) << apart.err;
  for (const char* part : {"train.learning_rate.peak: 0.001 | 0.002", "same up to step 2\n", "different at step 3",
                           "6 of 6 tensors differ", "final_norm.weight"}) {
    EXPECT_TRUE(has(apart.out, part)) << part << " in\n" << apart.out;
  }
  const Outcome same = run("checkpoint compare run run/checkpoints/step-00000002");
  EXPECT_TRUE(has(same.out, "no difference") && has(same.out, "the same run up to step 2")) << same.out;
  fs::remove_all(folder_ / "other/checkpoints/step-00000001");
  fs::remove_all(folder_ / "other/checkpoints/step-00000003");
  EXPECT_TRUE(has(run("checkpoint compare run/checkpoints/step-00000001 other").out, "no step of which both"));
}

TEST_F(CheckpointCommands, EveryOneHasHelpWithAnExample) {
  for (const char* name : {"verify", "inspect", "export", "compare"}) {
    const Outcome help = run(fmt::format("checkpoint {} --help", name));
    EXPECT_EQ(help.code, 0);
    EXPECT_TRUE(has(help.out, fmt::format("Example: mhmoe checkpoint {}", name))) << help.out;
  }
}

}  // namespace
}  // namespace mhmoe::cli
