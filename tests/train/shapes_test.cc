// Shapes that do not fit together: refused with sizes that do. Whatever is accepted trains.
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "train/config.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

// "accepted", or the message.
std::string verdict(const RunConfig& config) {
  try {
    validate(config);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig) << error.what();
    return error.what();
  }
  return "accepted";
}

bool is_about(const std::string& message, const std::string& key) {
  return message.starts_with("config: " + key + ": ");
}

std::vector<int64_t> numbers_after(const std::string& message, const std::string& word) {
  std::vector<int64_t> numbers;
  const size_t at = message.find(word);
  if (at == std::string::npos) return numbers;
  const std::string list = std::regex_replace(message.substr(at + word.size()), std::regex("(; |, or [a-z]).*"), "");
  const std::regex number("[0-9]+");
  for (std::sregex_iterator it(list.begin(), list.end(), number), end; it != end; ++it) {
    numbers.push_back(std::stoll(it->str()));
  }
  return numbers;
}

// Every size that a refusal names for `key` must take that refusal away. `change` sets it.
template <class Change>
void expect_remedies(const RunConfig& refused, const std::string& message, const std::string& key,
                     const std::string& word, const Change& change) {
  for (const int64_t size : numbers_after(message, word)) {
    RunConfig remedied = refused;
    change(remedied, size);
    const std::string after = verdict(remedied);
    EXPECT_FALSE(is_about(after, key)) << message << "\nwith " << size << ": " << after;
  }
}

void expect_one_step_runs(const RunConfig& config) {
  CpuTrainer run(config);
  const StepResult result = run.trainer->step(random_batch(config, 1));
  EXPECT_TRUE(std::isfinite(result.loss)) << resolved_config(config);
}

struct Counts {
  int accepted = 0, refused = 0;
};

void check(const RunConfig& config, bool fits, const std::string& key, Counts& counts, const std::string& word,
           void (*change)(RunConfig&, int64_t)) {
  const std::string message = verdict(config);
  EXPECT_EQ(message == "accepted", fits) << message << "\n" << resolved_config(config);
  if (message == "accepted") {
    expect_one_step_runs(config);
    ++counts.accepted;
  } else {
    EXPECT_TRUE(is_about(message, key)) << message;
    expect_remedies(config, message, key, word, change);
    ++counts.refused;
  }
}

TEST(Shapes, AttentionHeadsDivideTheWidthIntoEvenHeads) {
  Counts counts;
  for (const int64_t width : {2, 6, 7, 16, 30}) {
    for (int64_t heads = 1; heads <= width + 1; ++heads) {
      RunConfig config = tiny_config();
      config.model.hidden_size = width;
      config.model.attention_heads = heads;
      config.model.moe.every_n_layers = 0;
      check(config, width % heads == 0 && width / heads % 2 == 0, "model.attention_heads", counts, "try ",
            [](RunConfig& c, int64_t size) { c.model.attention_heads = size; });
    }
  }
  EXPECT_EQ(counts.accepted, 1 + 2 + 0 + 4 + 4);
  EXPECT_GT(counts.refused, 40);
}

TEST(Shapes, HeadsExpertsAndTopKFitTogether) {
  Counts heads_counts, top_k_counts;
  for (const int64_t heads : {1, 2, 3, 4, 5, 8, 12, 24, 25}) {
    for (const int64_t experts : {1, 2, 3, 5, 8}) {
      for (const int64_t top_k : {1, 2, 3, 8, 9}) {
        RunConfig config = tiny_config();
        config.model.hidden_size = 24;
        config.model.moe.heads = heads;
        config.model.moe.experts = experts;
        config.model.moe.top_k = top_k;
        if (top_k > experts) {
          check(config, false, "model.moe.top_k", top_k_counts, "at most ",
                [](RunConfig& c, int64_t size) { c.model.moe.top_k = size; });
        } else {
          check(config, 24 % heads == 0, "model.moe.heads", heads_counts, "try ",
                [](RunConfig& c, int64_t size) { c.model.moe.heads = size; });
        }
      }
    }
  }
  EXPECT_EQ(heads_counts.accepted, 7 * 13);
  EXPECT_EQ(heads_counts.refused, 2 * 13);
  EXPECT_EQ(top_k_counts.refused, 9 * 12);
}

TEST(Shapes, MoeLayersExist) {
  Counts counts;
  for (const int64_t layers : {1, 2, 3}) {
    for (const int64_t every : {0, 1, 2, 3, 4}) {
      RunConfig config = tiny_config();
      config.model.layers = layers;
      config.model.moe.every_n_layers = every;
      check(config, every <= layers, "model.moe.every_n_layers", counts, "at most ",
            [](RunConfig& c, int64_t size) { c.model.moe.every_n_layers = size; });
    }
  }
  EXPECT_EQ(counts.refused, 3 + 2 + 1);
}

// The message names batches, and micro-batches where one would do.
TEST(Shapes, BatchesAreWholeMicroBatches) {
  Counts counts;
  for (const int64_t length : {1, 3, 8}) {
    for (const int64_t micro : {1, 2, 3, 5}) {
      for (const int64_t batch : {1, 2, 6, 8, 24, 30, 31, 48}) {
        RunConfig config = tiny_config();
        config.data.sequence_length = length;
        config.train.micro_batch_sequences = micro;
        config.train.batch_tokens = batch;
        check(config, batch % (length * micro) == 0, "train.batch_tokens", counts, "try batch_tokens ",
              [](RunConfig& c, int64_t size) { c.train.batch_tokens = size; });
        const std::string message = verdict(config);
        if (message == "accepted") continue;
        EXPECT_FALSE(numbers_after(message, "try batch_tokens ").empty()) << message;
        EXPECT_EQ(message.find("or micro_batch_sequences ") != std::string::npos, batch % length == 0) << message;
        expect_remedies(config, message, "train.batch_tokens", "or micro_batch_sequences ",
                        [](RunConfig& c, int64_t size) { c.train.micro_batch_sequences = size; });
      }
    }
  }
  EXPECT_GT(counts.accepted, 20);
  EXPECT_GT(counts.refused, 40);
}

}  // namespace
}  // namespace mhmoe::train
