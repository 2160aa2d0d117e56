#include <sys/resource.h>

#include <algorithm>
#include <cmath>

#include "cli/program.h"

namespace mhmoe::cli {
namespace {

using Errors = ProgramTest;

// Every fault is one line on standard error, names what is wrong and has its exit code; nothing is left behind.
struct Fault {
  const char* arguments;
  int code;
  std::vector<std::string> parts;
};

TEST_F(Errors, BadInputsAreNamedInOneLineWithTheirExitCode) {
  std::ofstream(folder_ / "broken.json") << "{\"name\": \"x\",}";
  std::ofstream(folder_ / "text.safetensors") << "this is no model";
  const std::vector<Fault> faults{
      {"", 64, {"subcommand"}},
      {"fly", 64, {"\"fly\"", "choose one of train, ", "see mhmoe --help"}},
      {"bench fly", 64, {"\"fly\"", "choose one of ops, ", "see mhmoe bench --help"}},
      {"bench train tiny.json --precision fp32", 64, {"\"--precision fp32\"", "see mhmoe bench train --help"}},
      {"bench comm --min-bytes 4096 --max-bytes 1024", 64, {"--min-bytes 4096", "--max-bytes 1024"}},
      {"bench comm --set train.steps=3", 64, {"--set", "CONFIG"}},
      {"bench prepare --text-field text", 64, {"--text-field", "--input"}},
      {"train", 64, {"CONFIG"}},
      {"train tiny.json --threads 0", 64, {"--threads"}},
      {"train tiny.json --dump-step 0 --dump d", 64, {"--dump-step"}},
      {"train tiny.json --dump-step 7 --dump d", 64, {"--dump-step 7", "6 steps"}},
      {"train tiny.json --device abacus", 64, {"abacus", "cpu"}},
      {"train tiny.json --device cuda", 69, {"libmhmoe_cuda.so", "--device cpu"}},
      {"train none.json", 66, {"none.json"}},
      {"train broken.json", 78, {"broken.json:1"}},
      {"train tiny.json --set train.stesp=3", 78, {"train.stesp", "train.steps"}},
      {"train tiny.json --set model.moe.top_k=9", 78, {"top_k", "9"}},
      {"train tiny.json --set train.batch_tokens=65", 78, {"batch_tokens"}},
      {"train tiny.json --set model.vocab_size=100", 78, {"model.vocab_size", "100", "257"}},
      {"train tiny.json --set data.tokenizer=none.model", 66, {"none.model"}},
      {"train tiny.json --set data.train=[{\\\"path\\\":\\\"absent\\\"}]", 66, {"absent"}},
      {"train tiny.json --set data.train=[]", 78, {"data.train"}},
      {"train tiny.json --set data.sequence_length=4096 --set train.batch_tokens=8192", 65, {"train", "4097"}},
      {"train tiny.json --output-dir tiny.json", 73, {"tiny.json"}},
      {"evaluate none", 66, {"none"}},
      {"evaluate text.safetensors", 65, {"text.safetensors"}},
  };
  for (const Fault& fault : faults) expect_refused(fault.arguments, fault.code, fault.parts);
}

TEST_F(Errors, ModelOfAnotherShapeIsRefusedByName) {
  ASSERT_EQ(run("train tiny.json --threads 1 --set train.steps=2").code, 0);
  const Outcome outcome = run("evaluate runs/tiny --set model.layers=3");
  EXPECT_EQ(outcome.code, 65);
  EXPECT_NE(outcome.err.find("layers.2.attention_norm.weight"), std::string::npos) << outcome.err;
}

// Processor time, which other processes do not lengthen much, and five times the aim (docs/performance.md): whoever
// begins to do work before the arguments are read is noticed, a slow machine is not.
TEST_F(Errors, HelpDoesNoWorkFirst) {
  double least = INFINITY;
  for (int i = 0; i < 10; ++i) {
    rusage used{};
    int status = 0;
    const pid_t child = start("--help");
    ASSERT_EQ(wait4(child, &status, 0, &used), child);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    least = std::min(least, seconds(used.ru_utime) + seconds(used.ru_stime));
  }
  EXPECT_LT(least, 0.25);
}

#ifdef MHMOE_MPIRUN
// In a job whose launcher is not there.
TEST_F(Errors, HelpJoinsNoJob) {
  const char* job = "OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=0 OMPI_MCA_ess=none";
  EXPECT_EQ(run("--help", job).code, 0);
  const char* train = "train tiny.json --threads 1";
  const Outcome joins = run(train, job);
  EXPECT_EQ(joins.code, 69) << "then nothing is shown";
  EXPECT_NE(joins.err.find("the launcher started 2 ranks, MPI knows of 1"), std::string::npos) << joins.err;
  EXPECT_EQ(run(train).code, 0);
}
#endif

// The names that --help lists.
std::vector<std::string> subcommands_in(const std::string& help) {
  std::vector<std::string> names;
  const size_t list = help.find("Subcommands:\n");
  if (list == std::string::npos) return names;
  for (const std::string& line : lines_of(help.substr(list))) {
    if (line.starts_with("  ") && line.size() > 2 && line[2] != ' ')
      names.push_back(line.substr(2, line.find(' ', 2) - 2));
  }
  return names;
}

TEST_F(Errors, EverySubcommandHasHelpWithAnExample) {
  const Outcome all = run("--help");
  EXPECT_EQ(all.code, 0);
  const std::vector<std::string> commands = subcommands_in(all.out);
  for (const char* known : {"train", "evaluate", "prepare", "plan", "config", "trace"}) {
    EXPECT_NE(std::ranges::find(commands, known), commands.end()) << known;
  }
  for (const std::string& command : commands) {
    const Outcome help = run(fmt::format("{} --help", command));
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find(fmt::format("mhmoe {}", command)), std::string::npos) << help.out;
    EXPECT_NE(help.out.find("Example"), std::string::npos) << help.out;
  }
  const Outcome version = run("--version");
  EXPECT_EQ(version.code, 0);
  for (const char* part : {"mhmoe ", "oneDNN ", "denormals kept", "device: "})
    EXPECT_NE(version.out.find(part), std::string::npos);
  const std::string module = std::filesystem::path(program()).parent_path() / "libmhmoe_cuda.so";
  if (!std::filesystem::exists(module)) {
    EXPECT_NE(version.out.find("\nNCCL: none\n"), std::string::npos) << version.out;
  }
#ifdef MHMOE_MPIRUN
  EXPECT_NE(version.out.find("\nMPI: Open MPI v"), std::string::npos) << version.out;
#else
  EXPECT_NE(version.out.find("\nMPI: none\n"), std::string::npos) << version.out;
#endif
}

}  // namespace
}  // namespace mhmoe::cli
