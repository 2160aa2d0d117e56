#include "train/config_reader.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "train/config_schema.h"
#include "train/json_checks.h"

namespace mhmoe::train {
namespace {

using json::Kind;
using json::Value;

std::string join(const std::string& section, const std::string& name) {
  return section.empty() ? name : section + "." + name;
}

// Every key and every section.
std::vector<std::string> all_paths() {
  std::vector<std::string> paths;
  for (const ConfigKey& key : config_keys()) {
    for (std::string path = key.path; !path.empty();) {
      if (!path.ends_with("[]") && std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
      const size_t dot = path.rfind('.');
      path.resize(dot == std::string::npos ? 0 : dot);
    }
  }
  return paths;
}

std::string last_part(const std::string& path) {
  return path.substr(path.rfind('.') + 1);
}

// The valid path that looks most like this one, or "": one wrong letter is likelier than the wrong section, which is
// likelier than two.
std::string nearest_path(const std::string& section, const std::string& name) {
  std::string best;
  size_t best_score = SIZE_MAX;
  for (const std::string& path : all_paths()) {
    const bool same_section = path == join(section, last_part(path));
    const size_t edits = edit_distance(name, last_part(path));
    const size_t score = 2 * edits + (same_section ? 0 : 3);
    if (edits <= likely_edits(name) && score < best_score) {
      best = path;
      best_score = score;
    }
  }
  return best;
}

std::string names_in(const std::string& section) {
  std::string out;
  for (const std::string& path : all_paths()) {
    if (path == join(section, last_part(path))) out += (out.empty() ? "" : ", ") + last_part(path);
  }
  return out;
}

[[noreturn]] void fail_unknown(const Value& value, const std::string& section, const std::string& name) {
  std::string message = "unknown key";
  const std::string nearest = nearest_path(section, name);
  if (!nearest.empty()) message += fmt::format("; did you mean {}?", nearest);
  message += fmt::format(" ({} has: {})", section.empty() ? "the top level" : section, names_in(section));
  fail_at(value, join(section, name), message);
}

bool in_range(const ConfigKey& key, double value) {
  if (key.above_min ? value <= key.min : value < key.min) return false;
  if (key.below_max ? value >= key.max : value > key.max) return false;
  if (key.decimals == 0) return true;
  const double unit = std::pow(10.0, key.decimals);
  return std::round(value * unit) / unit == value;
}

bool mentions_dropout(std::string name) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name.find("dropout") != std::string::npos;
}

bool is_choice(const ConfigKey& key, const Value& value) {
  return std::find(key.choices.begin(), key.choices.end(), json::to_line(value)) != key.choices.end();
}

bool is_legal(const ConfigKey& key, const Value& value) {
  if (value.kind == Kind::kNull && key.nullable) return true;
  switch (key.type) {
    case KeyType::kBoolean:
      return value.kind == Kind::kBoolean;
    case KeyType::kInteger:
      return value.kind == Kind::kInteger && in_range(key, value.real);
    case KeyType::kNumber:
      return value.is_number() && in_range(key, value.real);
    case KeyType::kString:
      return value.kind == Kind::kString;
    case KeyType::kChoice:
      return is_choice(key, value);
    case KeyType::kList:
      return value.kind == Kind::kArray;
  }
  return false;
}

class Reader {
 public:
  explicit Reader(RunConfig& config) : config_(config) {}

  // `section` is "" or a path of the schema ("data.train[]"); index counts within its list.
  void read_object(const Value& object, const std::string& section, size_t index) {
    for (const Value& value : object.items) {
      if (value.key == "comment") {
        check_comment(value, join(section, "comment"));
      } else if (value.key == "extends" && section.empty()) {
        continue;
      } else {
        read_member(value, section, index);
      }
    }
    for (const ConfigKey& key : config_keys()) {
      if (key.required && key.section() == section && !object.find(key.name())) {
        fail_at(object, key.path, fmt::format("missing; expected {}", key.allowed()));
      }
    }
  }

 private:
  void read_member(const Value& value, const std::string& section, size_t index) {
    const std::string path = join(section, value.key);
    if (mentions_dropout(value.key)) {
      fail_at(value, path, "dropout is not built; remove this key");
    }
    bool is_section = false;
    for (const ConfigKey& key : config_keys()) {
      if (key.path == path) return read_key(key, value, index);
      is_section = is_section || key.path.starts_with(path + ".");
    }
    if (!is_section) fail_unknown(value, section, value.key);
    if (value.kind != Kind::kObject) {
      fail_at(value, path, fmt::format("found {}, expected an object with: {}", found(value), names_in(path)));
    }
    read_object(value, path, index);
  }

  void read_key(const ConfigKey& key, const Value& value, size_t index) {
    if (!is_legal(key, value)) {
      const std::string why = key.later.empty() ? "," : fmt::format(": {};", key.later);
      fail_at(value, key.path, fmt::format("found {}{} expected {}", found(value), why, key.allowed()));
    }
    if (key.read) key.read(config_, index, value);
    if (key.type != KeyType::kList) return;
    key.resize(config_, value.items.size());
    for (size_t i = 0; i < value.items.size(); ++i) {
      if (value.items[i].kind != Kind::kObject) {
        fail_at(value.items[i], fmt::format("{}[{}]", key.path, i),
                fmt::format("found {}, expected an object with: {}", found(value.items[i]), names_in(key.path + "[]")));
      }
      read_object(value.items[i], key.path + "[]", i);
    }
  }

  RunConfig& config_;
};

}  // namespace

RunConfig read_tree(const Value& tree) {
  if (tree.kind != Kind::kObject) {
    fail(ExitCode::kConfig, "{}: found {}, expected an object", tree.where(), json::to_string(tree.kind));
  }
  RunConfig config;
  Reader(config).read_object(tree, "", 0);
  return config;
}

}  // namespace mhmoe::train
