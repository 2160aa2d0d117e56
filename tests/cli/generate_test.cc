#include <cstdio>

#include "cli/program.h"
#include "core/safetensors.h"
#include "data/sentencepiece_tokenizer.h"
#include "train/utf8_stream.h"

namespace mhmoe::cli {
namespace {

class GenerateCommand : public ProgramTest {
 protected:
  void train(const std::string& more = "") const {
    const Outcome outcome = run("train tiny.json --threads 1 " + more);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  Outcome generate(const std::string& arguments) const { return run("generate runs/tiny --threads 1 " + arguments); }

  // Standard error ends with an error of these parts, and nothing was written to standard output.
  void expect_error(const std::string& arguments, int code, const std::vector<std::string>& parts) const {
    SCOPED_TRACE(arguments);
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    expect_error_line(outcome, parts);
  }

  // The newest checkpoint's model as a file of its own.
  void export_model(const std::string& name, const std::map<std::string, std::string>& metadata, float add = 0) const {
    const auto file = folder_ / "runs/tiny/checkpoints/step-00000006/model-00001-of-00001.safetensors";
    const SafetensorsFile model(file.string());
    std::vector<NamedTensor> tensors;
    for (const std::string& tensor : model.names()) {
      tensors.push_back({tensor, model.at(tensor)});
      model.at(tensor).as<float>()[0] += add;
    }
    write_safetensors((folder_ / name).string(), tensors, metadata);
  }
};

TEST_F(GenerateCommand, PrintsThePromptAndWhatFollowsTheSameForTheSameSeed) {
  train();
  const Outcome first = generate("--prompt 'the quick' --tokens 30");
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(first.out.starts_with("the quick")) << first.out;
  EXPECT_TRUE(first.out.ends_with("\n"));
  EXPECT_FALSE(train::first_invalid_utf8(first.out).has_value());
  EXPECT_NE(first.err.find("tokens after a prompt of 9"), std::string::npos) << first.err;
  EXPECT_EQ(generate("--prompt 'the quick' --tokens 30").out, first.out);
  EXPECT_EQ(generate("--prompt 'the quick' --tokens 30 --no-cache").out, first.out);
  EXPECT_NE(generate("--prompt 'the quick' --tokens 30 --seed 2").out, first.out);
  const Outcome greedy = generate("--prompt 'the quick' --tokens 30 --temperature 0");
  EXPECT_EQ(generate("--prompt 'the quick' --tokens 30 --temperature 0 --seed 2 --no-cache").out, greedy.out);
  EXPECT_EQ(generate("--prompt 'the quick' --tokens 30 --top-p 1e-9").out, greedy.out) << "one token is left";
  std::ofstream(folder_ / "prompt.txt") << "the quick";
  EXPECT_EQ(generate("--prompt-file prompt.txt --tokens 30").out, first.out);
}

TEST_F(GenerateCommand, ARunACheckpointAndAFileAreTheSameModel) {
  train();
  export_model("model.safetensors", {{"config", read_text(folder_ / "runs/tiny/config.json")}});
  const std::string of_run = generate("--tokens 20").out;
  EXPECT_EQ(run("generate runs/tiny/checkpoints/step-00000006 --threads 1 --tokens 20").out, of_run);
  EXPECT_EQ(run("generate model.safetensors --threads 1 --tokens 20").out, of_run);
}

TEST_F(GenerateCommand, WithoutPromptANewDocumentBegins) {
  train();
  const Outcome outcome = generate("--tokens 5");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.err.find("after a prompt of 1;"), std::string::npos) << outcome.err;
  EXPECT_EQ(generate("--prompt '' --tokens 5").out, outcome.out);
}

TEST_F(GenerateCommand, LongerThanTrainedOnIsAllowedWithAWarning) {
  train();
  EXPECT_EQ(generate("--prompt 123456 --tokens 10").err.find("warning"), std::string::npos);
  const Outcome outcome = generate("--prompt 'longer than the sixteen tokens of training' --tokens 10");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.err.find("warning: the text may grow to 52 tokens, and the model was trained on 16"),
            std::string::npos)
      << outcome.err;
}

// Text is written token by token, not at the end: a reader that leaves after the prompt ends the program early.
TEST_F(GenerateCommand, TextComesAsItIsMade) {
  train();
  const Outcome outcome =
      run("generate runs/tiny --threads 1 --prompt 'early' --tokens 10000000 | head -c 50 > head.txt; true");
  EXPECT_EQ(read_text(folder_ / "head.txt").size(), 50u) << outcome.err;
}

TEST_F(GenerateCommand, AFullDiskIsAnError) {
  train();
  const Outcome outcome = run("generate runs/tiny --threads 1 --tokens 5 --prompt x > /dev/full");
  EXPECT_EQ(outcome.code, 74);
  EXPECT_NE(outcome.err.find("error: standard output: cannot write: "), std::string::npos) << outcome.err;
}

TEST_F(GenerateCommand, WrongOptionsAndPromptsAreNamed) {
  train();
  expect_error("generate", 64, {"MODEL"});
  expect_error("generate runs/tiny --temperature -1", 64, {"--temperature -1", "0"});
  expect_error("generate runs/tiny --temperature nan", 64, {"--temperature nan"});
  expect_error("generate runs/tiny --top-p 0", 64, {"--top-p 0", "more than 0"});
  expect_error("generate runs/tiny --top-p nan", 64, {"--top-p nan"});
  expect_error("generate runs/tiny --top-p 1.1", 64, {"--top-p 1.1", "at most 1"});
  expect_error("generate runs/tiny --tokens 0", 64, {"--tokens"});
  expect_error("generate runs/tiny --seed -1", 64, {"--seed"});
  expect_error("generate runs/tiny --prompt a --prompt-file b", 64, {"--prompt"});
  expect_error("generate runs/tiny --prompt $(printf 'ab\\351c')", 64,
               {"--prompt: byte 3 is not valid UTF-8", "iconv"});
  expect_error("generate runs/tiny --prompt-file none.txt", 66, {"none.txt"});
  expect_error("generate runs/tiny --prompt-file .", 66, {"."});
  std::ofstream(folder_ / "latin1.txt") << "caf\xe9";
  std::ofstream(folder_ / "huge.txt") << "a";
  std::filesystem::resize_file(folder_ / "huge.txt", uintmax_t{1} << 40);
  expect_error("generate runs/tiny --prompt-file huge.txt", 65,
               {"huge.txt: has 1099511627776 bytes, a prompt at most"});
  expect_error("generate runs/tiny --prompt-file latin1.txt", 65, {"latin1.txt: byte 4 is not valid UTF-8", "iconv"});
}

TEST_F(GenerateCommand, WrongModelsAreNamed) {
  train();
  expect_error("generate none", 66, {"none"});
  std::filesystem::create_directories(folder_ / "empty");
  expect_error("generate empty", 66, {"empty", "no checkpoint"});
  expect_error("generate tiny.json", 65, {"tiny.json"});
  export_model("plain.safetensors", {});
  expect_error("generate plain.safetensors", 65, {"plain.safetensors", "config", "checkpoint export"});
  const std::string config = read_text(folder_ / "runs/tiny/config.json");
  export_model("damaged.safetensors", {{"config", config}}, std::numeric_limits<float>::quiet_NaN());
  expect_error("generate damaged.safetensors", 65, {"damaged.safetensors", "embed.weight", "not finite"});
  expect_error("generate runs/tiny --set model.layers=3", 65, {"layers.2.attention_norm.weight"});
  expect_error("generate runs/tiny --set data.tokenizer=null", 78, {"data.tokenizer"});
  expect_error("generate runs/tiny --set data.tokenizer=none.model", 66, {"none.model"});
}

TEST_F(GenerateCommand, AnotherTokenizerThanTheTrainedOneIsRefused) {
  train();
  int line = 0;
  const std::string model = data::train_sentencepiece(300, [&](std::string& text) {
    text = fmt::format("the {} quick brown foxes jump over {} lazy dogs", line, 1000 - line);
    return ++line < 200;
  });
  std::ofstream(folder_ / "other.model", std::ios::binary) << model;
  expect_error("generate runs/tiny --set data.tokenizer=other.model --set model.vocab_size=null", 65,
               {"step-00000006", "another tokenizer", "other.model", "--set data.tokenizer"});
}

}  // namespace
}  // namespace mhmoe::cli
