#include "train/suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>

#include "train/config.h"
#include "train/json_checks.h"
#include "train/run_folder.h"

namespace mhmoe::train {
namespace {

namespace fs = std::filesystem;
using json::Kind;
using json::Value;

constexpr std::array<std::string_view, 5> kKeys = {"comment", "name", "title", "members", "output_dir"};

[[noreturn]] void fail_unknown(const Value& value) {
  const auto distance = [&value](std::string_view key) { return edit_distance(value.key, key); };
  const std::string_view nearest = *std::ranges::min_element(kKeys, {}, distance);
  const std::string hint =
      distance(nearest) <= likely_edits(value.key) ? fmt::format("; did you mean {}?", nearest) : "";
  fail_at(value, value.key, fmt::format("unknown key{} (a suite has: {})", hint, fmt::join(kKeys, ", ")));
}

const std::string& text_of(const Value& value, const std::string& path, const char* expected) {
  if (value.kind != Kind::kString || value.text.empty()) {
    fail_at(value, path, fmt::format("found {}, expected {}", found(value), expected));
  }
  return value.text;
}

std::vector<std::string> read_members(const Value& list, const fs::path& folder) {
  constexpr const char* kExpected = "a list of configuration files, for example [\"dense.json\", \"smoe_8.json\"]";
  if (list.kind != Kind::kArray || list.items.empty()) {
    fail_at(list, "members", fmt::format("found {}, expected {}", found(list), kExpected));
  }
  std::vector<std::string> members;
  for (size_t i = 0; i < list.items.size(); ++i) {
    const std::string path = fmt::format("members[{}]", i);
    const fs::path member = folder / text_of(list.items[i], path, "the name of a configuration file");
    members.push_back(member.lexically_normal().string());
    std::error_code unknown;  // then opening it tells why
    if (!fs::exists(member, unknown) && !unknown) {
      fail(ExitCode::kMissingInput, "{}: {}: no file {}", list.items[i].where(), path, json::quote(members.back()));
    }
  }
  return members;
}

}  // namespace

Suite load_suite(const std::string& path) {
  const Value tree = json::read_file(path, ExitCode::kConfig);
  if (tree.kind != Kind::kObject) {
    fail(ExitCode::kConfig, "{}: found {}, expected an object", tree.where(), json::to_string(tree.kind));
  }
  Suite suite;
  for (const Value& value : tree.items) {
    if (value.key == "comment") {
      check_comment(value, "comment");
    } else if (value.key == "name") {
      suite.name = text_of(value, "name", "a name");
    } else if (value.key == "title") {
      suite.title = text_of(value, "title", "a title");
    } else if (value.key == "members") {
      suite.members = read_members(value, fs::path(path).parent_path());
    } else if (value.key == "output_dir") {
      suite.output_dir = text_of(value, "output_dir", "the name of a folder");
    } else {
      fail_unknown(value);
    }
  }
  for (const char* required : {"name", "members"}) {
    if (!tree.find(required)) fail_at(tree, required, "missing; a suite needs name and members");
  }
  return suite;
}

std::vector<RunConfig> load_members(const Suite& suite, std::span<const std::string> overrides) {
  std::vector<std::string> all;
  if (!suite.output_dir.empty()) all.push_back("output_dir=" + json::quote(suite.output_dir));
  all.insert(all.end(), overrides.begin(), overrides.end());
  std::vector<RunConfig> configs;
  std::map<std::string, std::string> member_of;  // by run folder
  for (const std::string& member : suite.members) {
    configs.push_back(load_config(member, all));
    const std::string folder = fs::path(run_folder(configs.back())).lexically_normal().string();
    const auto [other, is_new] = member_of.emplace(folder, member);
    if (!is_new) {
      fail(ExitCode::kConfig, "{}: its run folder {} is also that of {}; give each member a name of its own", member,
           folder, other->second);
    }
    try {
      require_data(configs.back(), true);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}: {}", member, error.what()));
    }
  }
  return configs;
}

}  // namespace mhmoe::train
