#include "cli/score_table.h"

#include <algorithm>

#include "core/json.h"

namespace mhmoe::cli {
namespace {

std::string heading(size_t width) {
  return fmt::format("{:<{}}  {:>10}  {:>14}  {:>14}  {:>10}\n", "validation set", width, "tokens", "perplexity",
                     "dropless", "bits/byte");
}

std::string line(const train::ValidationScore& score, size_t width) {
  return fmt::format("{:<{}}  {:>10}  {:>14.4f}  {:>14.4f}  {:>10.4f}\n", score.name, width, score.targets,
                     score.perplexity(), score.perplexity_dropless(), score.bits_per_byte);
}

size_t name_width(std::span<const train::ValidationScore> scores) {
  size_t width = std::string_view("validation set").size();
  for (const train::ValidationScore& score : scores) width = std::max(width, score.name.size());
  return width;
}

json::Value json_of(const train::ValidationScore& score) {
  json::Value out = json::Value::object();
  out.add("name", score.name);
  out.add("tokens", score.targets);
  out.add("loss", score.loss);
  out.add("perplexity", score.perplexity());
  out.add("loss_dropless", score.loss_dropless);
  out.add("perplexity_dropless", score.perplexity_dropless());
  out.add("bits_per_byte", score.bits_per_byte);
  return out;
}

}  // namespace

std::string score_table(std::span<const train::ValidationScore> scores) {
  const size_t width = name_width(scores);
  std::string out = heading(width);
  for (const train::ValidationScore& score : scores) out += line(score, width);
  return out;
}

std::string score_table(std::span<const ModelScores> models) {
  if (models.size() == 1) return score_table(models.front().sets);
  size_t model_width = std::string_view("model").size(), width = 0;
  for (const ModelScores& model : models) {
    model_width = std::max(model_width, model.model.size());
    width = std::max(width, name_width(model.sets));
  }
  std::string out = fmt::format("{:<{}}  {}", "model", model_width, heading(width));
  for (const ModelScores& model : models) {
    for (const train::ValidationScore& score : model.sets) {
      out += fmt::format("{:<{}}  {}", model.model, model_width, line(score, width));
    }
  }
  return out;
}

std::string score_json(std::span<const ModelScores> models) {
  json::Value list = json::Value::array();
  for (const ModelScores& model : models) {
    json::Value out = json::Value::object();
    out.add("model", model.model);
    out.add("source", model.source);
    out.add("step", model.step ? json::Value(*model.step) : json::Value());
    json::Value& sets = out.add("validation", json::Value::array());
    for (const train::ValidationScore& score : model.sets) sets.add(json_of(score));
    list.add(std::move(out));
  }
  json::Value all = json::Value::object();
  all.add("models", std::move(list));
  return json::to_line(all) + "\n";
}

}  // namespace mhmoe::cli
