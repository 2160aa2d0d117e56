#include <cmath>

#include "cli/program.h"
#include "core/json.h"

namespace mhmoe::cli {
namespace {

class EvaluateCommand : public ProgramTest {
 protected:
  void train(const std::string& more = "") const {
    const Outcome outcome = run("train tiny.json --threads 1 " + more);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  json::Value evaluate(const std::string& arguments) const {
    const Outcome outcome = run("evaluate --threads 1 --json " + arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(lines_of(outcome.out).size(), 1u) << outcome.out;
    return json::parse(outcome.out, "output", ExitCode::kBadData);
  }
};

const json::Value& models_of(const json::Value& output) {
  return *output.find("models");
}
const json::Value& sets_of(const json::Value& model) {
  return *model.find("validation");
}
double number(const json::Value& object, const char* name) {
  return object.find(name)->real;
}

TEST_F(EvaluateCommand, SetsOfOnesOwnReplaceTheConfigurations) {
  train();
  const json::Value output = evaluate("runs/tiny --data books=validation --data web=train --set evaluation.tokens=300");
  const auto& sets = sets_of(models_of(output).items.at(0)).items;
  ASSERT_EQ(sets.size(), 2u);
  EXPECT_EQ(sets[0].find("name")->text, "books");
  EXPECT_EQ(sets[1].find("name")->text, "web");
  EXPECT_EQ(sets[1].find("tokens")->integer, 300);
  EXPECT_LT(sets[0].find("tokens")->integer, 300) << "all there are";
  const json::Value one = evaluate("runs/tiny --data web=train --set evaluation.tokens=300");
  EXPECT_EQ(json::to_line(sets_of(models_of(one).items.at(0)).items.at(0)), json::to_line(sets[1]));
}

TEST_F(EvaluateCommand, NumbersAgreeWithEachOtherAndWithTheTable) {
  train("--set model.moe.capacity_factor=0.3");
  const json::Value output = evaluate("runs/tiny");
  const json::Value& model = models_of(output).items.at(0);
  EXPECT_EQ(model.find("model")->text, "runs/tiny");
  EXPECT_EQ(model.find("source")->text, "runs/tiny/checkpoints/step-00000006");
  EXPECT_EQ(model.find("step")->integer, 6);
  const json::Value& set = sets_of(model).items.at(0);
  EXPECT_EQ(set.find("tokens")->integer, 100);
  EXPECT_DOUBLE_EQ(number(set, "perplexity"), std::exp(number(set, "loss")));
  EXPECT_DOUBLE_EQ(number(set, "perplexity_dropless"), std::exp(number(set, "loss_dropless")));
  EXPECT_NE(number(set, "perplexity"), number(set, "perplexity_dropless"));
  // 100 targets: all bytes but the end of the first document or two.
  const double bits = number(set, "loss") * 100 / std::log(2.0);
  EXPECT_GE(number(set, "bits_per_byte"), bits / 100);
  EXPECT_LE(number(set, "bits_per_byte"), bits / 97);
  const std::string table = run("evaluate runs/tiny --threads 1").out;
  for (const char* name : {"perplexity", "perplexity_dropless", "bits_per_byte"}) {
    EXPECT_NE(table.find(fmt::format(" {:.4f}", number(set, name))), std::string::npos) << name << "\n" << table;
  }
  // Dropless training scores both the same.
  const json::Value dropless = evaluate("runs/tiny --set model.moe.capacity_factor=null");
  const json::Value& other = sets_of(models_of(dropless).items.at(0)).items.at(0);
  EXPECT_EQ(number(other, "loss"), number(set, "loss_dropless"));
  EXPECT_EQ(number(other, "loss_dropless"), number(set, "loss_dropless"));
}

TEST_F(EvaluateCommand, SeveralModelsAreOneTable) {
  train();
  train("--set name=dense --set model.moe.every_n_layers=0");
  const Outcome both = run("evaluate runs/tiny runs/dense --threads 1");
  ASSERT_EQ(both.code, 0) << both.err;
  const auto lines = lines_of(both.out);
  ASSERT_EQ(lines.size(), 3u) << both.out;
  EXPECT_TRUE(lines[0].starts_with("model "));
  for (const auto& [line, name] : {std::pair{1, "runs/tiny"}, {2, "runs/dense"}}) {
    EXPECT_TRUE(lines[line].starts_with(name)) << both.out;
    const std::string alone = run(fmt::format("evaluate {} --threads 1", name)).out;
    const std::string scores = lines_of(alone).at(1);
    EXPECT_NE(lines[line].find(scores), std::string::npos) << both.out << alone;
  }
  EXPECT_EQ(models_of(evaluate("runs/tiny runs/dense")).items.size(), 2u);
}

TEST_F(EvaluateCommand, WrongInputsAreNamed) {
  train();
  struct Fault {
    const char* arguments;
    int code;
    std::vector<std::string> parts;
  };
  const std::vector<Fault> faults{
      {"", 64, {"MODEL"}},
      {"runs/tiny --data validation", 64, {"--data validation", "NAME=PREFIX"}},
      {"runs/tiny --data =validation", 78, {"data.validation", "found the name \"\""}},
      {"runs/tiny --data a/b=validation", 78, {"data.validation", "a/b"}},
      {"runs/tiny --data a=", 78, {"data.validation", "empty path"}},
      {"runs/tiny --data a=train --data a=validation", 78, {"data.validation", "two sets", "\"a\""}},
      {"runs/tiny --data a=absent", 66, {"absent"}},
      {"runs/tiny none", 66, {"none"}},
      {"runs/tiny --set data.validation=[]", 78, {"data.validation"}},
      {"tiny.json", 65, {"tiny.json"}},
  };
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.arguments);
    const Outcome outcome = run(std::string("evaluate ") + fault.arguments);
    EXPECT_EQ(outcome.code, fault.code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    expect_error_line(outcome, fault.parts);
  }
  EXPECT_EQ(run("evaluate runs/tiny --threads 1 > /dev/full").code, 74);
}

}  // namespace
}  // namespace mhmoe::cli
