#include <algorithm>
#include <cctype>
#include <set>

#include "train/config.h"

namespace mhmoe::train {
namespace {

// Collects nothing: the first contradiction throws, naming where the key was set.
class Checker {
 public:
  explicit Checker(const Locate& where) : where_(where) {}

  template <class... Args>
  void require(bool holds, std::string_view path, fmt::format_string<Args...> message, Args&&... args) const {
    if (holds) return;
    fail(ExitCode::kConfig, "{}: {}: {}", where_(path), path, fmt::format(message, std::forward<Args>(args)...));
  }

 private:
  const Locate& where_;
};

// Up to `count` divisors of `of` nearest to `wish` that satisfy `accept`, in ascending order, as text.
template <class Accept>
std::string divisors_near(int64_t of, int64_t wish, Accept&& accept, size_t count = 4) {
  std::vector<int64_t> found;
  for (int64_t d = 1; d * d <= of; ++d) {
    if (of % d) continue;
    for (const int64_t candidate : {d, of / d}) {
      if (accept(candidate) && std::find(found.begin(), found.end(), candidate) == found.end())
        found.push_back(candidate);
    }
  }
  std::sort(found.begin(), found.end(), [wish](int64_t a, int64_t b) {
    const int64_t da = std::abs(a - wish), db = std::abs(b - wish);
    return da != db ? da < db : a < b;
  });
  if (found.size() > count) found.resize(count);
  std::sort(found.begin(), found.end());
  std::string out;
  for (const int64_t d : found) out += (out.empty() ? "" : ", ") + std::to_string(d);
  return out.empty() ? "none" : out;
}

// Names end up in paths, metric names and CSV columns.
bool is_plain_name(const std::string& name) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= 200 && name[0] != '.' && std::all_of(name.begin(), name.end(), plain);
}

constexpr std::string_view kPlainName = "expected letters, digits, '.', '_' and '-', not beginning with '.'";

void check_run(const Checker& check, const RunConfig& c) {
  check.require(is_plain_name(c.name), "name", "found \"{}\", {}", c.name, kPlainName);
  check.require(!c.output_dir.empty(), "output_dir", "found \"\", expected the name of a folder");
}

void check_data(const Checker& check, const DataConfig& data) {
  for (size_t i = 0; i < data.train.size(); ++i) {
    check.require(!data.train[i].path.empty(), "data.train", "element {} has an empty path", i);
  }
  std::set<std::string> names;
  for (const ValidationConfig& set : data.validation) {
    check.require(!set.path.empty(), "data.validation", "set \"{}\" has an empty path", set.name);
    check.require(is_plain_name(set.name), "data.validation", "found the name \"{}\", {}", set.name, kPlainName);
    check.require(names.insert(set.name).second, "data.validation", "two sets have the name \"{}\"; names must differ",
                  set.name);
  }
}

void check_model(const Checker& check, const nn::ModelConfig& model) {
  const int64_t width = model.hidden_size;
  const auto even_head = [width](int64_t heads) { return width / heads % 2 == 0; };
  check.require(width % model.attention_heads == 0 && even_head(model.attention_heads), "model.attention_heads",
                "{} heads on hidden_size {}; the head size must be a whole, even number (rotary positions): try {}",
                model.attention_heads, width, divisors_near(width, model.attention_heads, even_head));
}

void check_moe(const Checker& check, const nn::ModelConfig& model) {
  const nn::MoeConfig& moe = model.moe;
  if (moe.every_n_layers == 0) return;
  check.require(moe.every_n_layers <= model.layers, "model.moe.every_n_layers",
                "{} is more than model.layers, {}: no layer would be MoE; expected at most {}, or 0 for a dense model",
                moe.every_n_layers, model.layers, model.layers);
  check.require(moe.top_k <= moe.experts, "model.moe.top_k", "{} of {} experts; at most {} can be chosen", moe.top_k,
                moe.experts, moe.experts);
  check.require(model.hidden_size % moe.heads == 0, "model.moe.heads", "{} heads do not divide hidden_size {}: try {}",
                moe.heads, model.hidden_size,
                divisors_near(model.hidden_size, moe.heads, [](int64_t) { return true; }));
}

// Tokens of a run are counted in 64 bits; this leaves room.
constexpr int64_t kMaxRunTokens = 1'000'000'000'000'000;

void check_train(const Checker& check, const RunConfig& c) {
  check.require(c.train.steps <= kMaxRunTokens / c.train.batch_tokens, "train.steps",
                "{} steps of {} tokens (train.batch_tokens) are more than {} tokens; lower either", c.train.steps,
                c.train.batch_tokens, kMaxRunTokens);
  const int64_t micro_tokens = c.data.sequence_length * c.train.micro_batch_sequences;
  if (c.train.batch_tokens % micro_tokens != 0) {
    const int64_t below = c.train.batch_tokens / micro_tokens * micro_tokens;
    std::string fits =
        fmt::format("try batch_tokens {}",
                    below > 0 ? fmt::format("{} or {}", below, below + micro_tokens) : std::to_string(micro_tokens));
    if (c.train.batch_tokens % c.data.sequence_length == 0) {
      fits += fmt::format(", or micro_batch_sequences {}",
                          divisors_near(c.train.batch_tokens / c.data.sequence_length, c.train.micro_batch_sequences,
                                        [](int64_t) { return true; }));
    }
    check.require(false, "train.batch_tokens",
                  "{} tokens are no multiple of a micro-batch, sequence_length {} x micro_batch_sequences {} = {}: {}",
                  c.train.batch_tokens, c.data.sequence_length, c.train.micro_batch_sequences, micro_tokens, fits);
  }
  const LearningRateConfig& rate = c.train.learning_rate;
  check.require(rate.warmup_steps <= c.train.steps, "train.learning_rate.warmup_steps",
                "{} warm-up steps are more than train.steps, {}; expected at most {}", rate.warmup_steps, c.train.steps,
                c.train.steps);
  check.require(rate.final <= rate.peak, "train.learning_rate.final", "{} is above train.learning_rate.peak, {}",
                rate.final, rate.peak);
}

}  // namespace

void validate(const RunConfig& config, const Locate& where) {
  const Checker check(where);
  check_run(check, config);
  check_data(check, config.data);
  check_model(check, config.model);
  check_moe(check, config.model);
  check_train(check, config);
}

void require_data(const RunConfig& config, bool training) {
  if (config.data.tokenizer.empty()) {
    fail(ExitCode::kConfig, "data.tokenizer: missing; expected a SentencePiece .model file or \"bytes\"");
  }
  if (training && config.data.train.empty()) {
    fail(ExitCode::kConfig, "data.train: empty; expected at least one {{\"path\": ...}} written by `mhmoe prepare`");
  }
  if (!training && config.data.validation.empty()) {
    fail(ExitCode::kConfig, "data.validation: empty; expected at least one {{\"name\": ..., \"path\": ...}}");
  }
}

}  // namespace mhmoe::train
