#include "train/json_checks.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace mhmoe::train {

using json::Kind;
using json::Value;

void fail_at(const Value& value, const std::string& path, const std::string& message) {
  fail(ExitCode::kConfig, "{}: {}: {}", value.where(), path, message);
}

std::string found(const Value& value) {
  std::string text = value.is_number() && !value.text.empty() ? value.text : json::to_line(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

void check_comment(const Value& value, const std::string& path) {
  const auto is_string = [](const Value& item) { return item.kind == Kind::kString; };
  if (is_string(value)) return;
  if (value.kind == Kind::kArray && std::all_of(value.items.begin(), value.items.end(), is_string)) return;
  fail_at(value, path, fmt::format("found {}, expected a string or a list of strings", found(value)));
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({diagonal + (a[i - 1] != b[j - 1]), above + 1, row[j - 1] + 1});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace mhmoe::train
