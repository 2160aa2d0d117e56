#include "train/config.h"

#include <algorithm>
#include <filesystem>

#include "train/config_reader.h"
#include "train/config_schema.h"

namespace mhmoe::train {
namespace {

namespace fs = std::filesystem;
using json::Kind;
using json::Value;

// `over` wins; objects merge key by key, anything else is replaced. Comments and extends stay behind in `over`.
void merge(Value& base, Value over) {
  for (Value& member : over.items) {
    if (member.key == "extends") continue;
    Value* existing = base.find(member.key);
    if (!existing) {
      base.items.push_back(std::move(member));
    } else if (existing->kind == Kind::kObject && member.kind == Kind::kObject) {
      existing->line = member.line;
      existing->file = member.file;
      merge(*existing, std::move(member));
    } else {
      *existing = std::move(member);
    }
  }
}

// The file that `extends` names: below the folder of the file it stands in, symbolic links followed.
std::string resolve_extends(const Value& extends, const std::string& from) {
  if (extends.kind != Kind::kString || extends.text.empty()) {
    fail(ExitCode::kConfig, "{}: extends: found {}, expected the name of a file", extends.where(),
         json::to_line(extends));
  }
  const fs::path folder = fs::path(from).has_parent_path() ? fs::path(from).parent_path() : fs::path(".");
  const fs::path path = folder / extends.text;
  std::error_code error;
  if (!fs::exists(path, error)) {
    fail(ExitCode::kMissingInput, "{}: extends: no file {}", extends.where(), json::quote(path.string()));
  }
  const fs::path inside = fs::weakly_canonical(path, error).lexically_relative(fs::weakly_canonical(folder, error));
  if (error || fs::path(extends.text).is_absolute() || inside.empty() || *inside.begin() == "..") {
    fail(ExitCode::kPermission,
         "{}: extends: {} leads out of the file's folder; only files in it or below can be extended", extends.where(),
         json::quote(extends.text));
  }
  return path.lexically_normal().string();
}

Value read_with_bases(const std::string& path, std::vector<std::string>& chain) {
  Value tree = json::read_file(path, ExitCode::kConfig);
  const Value* extends = tree.find("extends");
  if (!extends) return tree;
  std::error_code error;
  chain.push_back(fs::weakly_canonical(path, error).string());
  const std::string base_path = resolve_extends(*extends, path);
  if (std::find(chain.begin(), chain.end(), fs::weakly_canonical(base_path, error).string()) != chain.end()) {
    fail(ExitCode::kConfig, "{}: extends: {} extends itself in a circle", extends->where(), json::quote(base_path));
  }
  Value base = read_with_bases(base_path, chain);
  if (base.kind != Kind::kObject) return base;
  base.file = tree.file;
  base.line = tree.line;
  merge(base, std::move(tree));
  return base;
}

void set_source(Value& value, const std::shared_ptr<const std::string>& source) {
  value.file = source;
  value.line = 0;
  for (Value& item : value.items) set_source(item, source);
}

void apply_override(Value& tree, const std::string& text) {
  const auto source = std::make_shared<const std::string>("--set " + text);
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail(ExitCode::kConfig, "{}: expected KEY=VALUE, for example train.steps=100", *source);
  }
  const std::string path = text.substr(0, equals);
  const std::string written = text.substr(equals + 1);
  Value value;
  try {
    value = json::parse(written, *source, ExitCode::kConfig);
  } catch (const Error&) {
    value = Value(written);  // a bare word is a string
  }
  set_source(value, source);
  Value* at = &tree;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    const std::string name = path.substr(begin, dot - begin);
    if (at->kind != Kind::kObject) fail(ExitCode::kConfig, "{}: {}: not an object", *source, path.substr(0, begin - 1));
    Value* next = at->find(name);
    if (!next) {
      next = &at->add(name, Value::object());
      set_source(*next, source);
    }
    if (dot == path.size()) {
      value.key = name;
      *next = value;
    }
    at = next;
    begin = dot + 1;
  }
}

// Where a path of the schema was set; of what is not set, the nearest enclosing object.
std::string locate(const Value& tree, std::string_view path) {
  const Value* at = &tree;
  for (size_t begin = 0; begin < path.size();) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    const Value* next = at->find(path.substr(begin, dot - begin));
    if (!next) break;
    at = next;
    begin = dot + 1;
  }
  return at->where();
}

Value& section_of(Value& tree, const std::string& section) {
  Value* at = &tree;
  for (size_t begin = 0; begin < section.size();) {
    const size_t dot = std::min(section.find('.', begin), section.size());
    const std::string name = section.substr(begin, dot - begin);
    Value* next = at->find(name);
    at = next ? next : &at->add(name, Value::object());
    begin = dot + 1;
  }
  return *at;
}

RunConfig checked_config(Value tree, std::span<const std::string> overrides) {
  if (tree.kind == Kind::kObject) {
    for (const std::string& text : overrides) apply_override(tree, text);
  }
  RunConfig config = read_tree(tree);
  validate(config, [&tree](std::string_view key) { return locate(tree, key); });
  return config;
}

}  // namespace

RunConfig load_config(const std::string& path, std::span<const std::string> overrides) {
  std::vector<std::string> chain;
  return checked_config(read_with_bases(path, chain), overrides);
}

RunConfig parse_config(std::string_view text, const std::string& source, std::span<const std::string> overrides) {
  return checked_config(json::parse(text, source, ExitCode::kConfig), overrides);
}

std::string resolved_config(const RunConfig& config) {
  Value tree = Value::object();
  for (const ConfigKey& key : config_keys()) {
    if (key.path.find("[]") != std::string::npos) continue;
    Value& section = section_of(tree, key.section());
    if (key.type != KeyType::kList) {
      section.add(key.name(), key.write(config, 0));
      continue;
    }
    Value& list = section.add(key.name(), Value::array());
    for (size_t i = 0; i < key.size(config); ++i) {
      Value& element = list.add(Value::object());
      for (const ConfigKey& member : config_keys()) {
        if (member.section() == key.path + "[]") element.add(member.name(), member.write(config, i));
      }
    }
  }
  return json::to_text(tree);
}

}  // namespace mhmoe::train
