#include "cli/suite_table.h"

#include <algorithm>
#include <vector>

#include "plan/parameters.h"
#include "plan/report.h"
#include "train/flops.h"

namespace mhmoe::cli {
namespace {

using plan::scaled;
using Row = std::vector<std::string>;

// The first column to the left, all others to the right, two spaces between.
std::string aligned(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows[0].size());
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const Row& row : rows) {
    out += fmt::format("{:<{}}", row[0], widths[0]);
    for (size_t i = 1; i < row.size(); ++i) out += fmt::format("  {:>{}}", row[i], widths[i]);
    out += "\n";
  }
  return out;
}

double flops_per_token(const train::RunConfig& config) {
  return train::training_flops_per_token(config.model, config.data.sequence_length);
}

std::string count(int64_t value) {
  return scaled(static_cast<double>(value));
}

void append_scores(Row& row, const SuiteMember& member, const std::vector<std::string>& sets) {
  for (const std::string& set : sets) {
    const auto& scores = member.summary.validation;
    const auto score = std::ranges::find(scores, set, &train::ValidationScore::name);
    row.push_back(score == scores.end() ? "-" : fmt::format("{:.2f}", score->perplexity()));
    row.push_back(score == scores.end() ? "-" : fmt::format("{:.4f}", score->bits_per_byte));
  }
}

}  // namespace

std::string planned_table(std::span<const train::RunConfig> members) {
  std::vector<Row> rows = {{"member", "steps", "tokens", "parameters", "active", "FLOPs/token", "FLOPs"}};
  int64_t tokens = 0;
  double flops = 0;
  for (const train::RunConfig& config : members) {
    const int64_t own_tokens = config.train.steps * config.train.batch_tokens;
    const double own_flops = flops_per_token(config) * static_cast<double>(own_tokens);
    rows.push_back({config.name, std::to_string(config.train.steps), count(own_tokens),
                    count(plan::count_parameters(config.model).total()),
                    count(plan::count_active_parameters(config.model).total()), scaled(flops_per_token(config)),
                    scaled(own_flops)});
    tokens += own_tokens;
    flops += own_flops;
  }
  rows.push_back({"all", "", count(tokens), "", "", "", scaled(flops)});
  return aligned(rows);
}

std::string result_table(std::span<const SuiteMember> members) {
  std::vector<std::string> sets;
  for (const SuiteMember& member : members) {
    for (const train::ValidationScore& score : member.summary.validation) {
      if (std::ranges::find(sets, score.name) == sets.end()) sets.push_back(score.name);
    }
  }
  Row heading = {"member"};
  for (const std::string& set : sets) {
    heading.push_back(set + " perplexity");
    heading.push_back("bits/byte");
  }
  for (const char* column : {"parameters", "active", "FLOPs/token", "tokens/s"}) heading.emplace_back(column);
  std::vector<Row> rows = {heading};
  for (const SuiteMember& member : members) {
    Row row = {member.config.name};
    append_scores(row, member, sets);
    row.push_back(count(plan::count_parameters(member.config.model).total()));
    row.push_back(count(plan::count_active_parameters(member.config.model).total()));
    row.push_back(scaled(flops_per_token(member.config)));
    row.push_back(scaled(static_cast<double>(member.summary.tokens) / member.summary.seconds));
    rows.push_back(row);
  }
  return aligned(rows);
}

}  // namespace mhmoe::cli
