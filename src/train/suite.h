// A suite: experiments that are compared, run one after another.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "train/run_config.h"

namespace mhmoe::train {

struct Suite {
  std::string name;
  std::string title;                 // of the report; empty: the name
  std::vector<std::string> members;  // configuration files, as they are opened
  std::string output_dir;            // of every member; empty: each has its own
};

// Reads {"name": ..., "title": ..., "members": ["dense.json", ...], "output_dir": ..., "comment": ...} from strict
// JSON; members are named relative to the file's folder. Throws Error(kConfig) with file, line, key, what was found and
// what is allowed, and Error(kMissingInput) for a member that is no file.
Suite load_suite(const std::string& path);

// The configurations of all members, in order, checked before any of them runs; the overrides go to each, after the
// suite's output_dir. Throws as load_config and require_data, and Error(kConfig) when two members have one run folder.
std::vector<RunConfig> load_members(const Suite& suite, std::span<const std::string> overrides);

}  // namespace mhmoe::train
