// Every configuration key, once: type, range, default, meaning and where it lives in RunConfig. Reading, checking,
// `config --schema` and the resolved config all walk this table.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "train/run_config.h"

namespace mhmoe::train {

enum class KeyType : uint8_t { kBoolean, kInteger, kNumber, kString, kChoice, kList };

struct ConfigKey {
  std::string path;  // "train.steps"; a member of a list's elements: "data.train[].path"
  KeyType type;
  std::string meaning;
  bool nullable = false;
  double min = 0, max = 0;                // kInteger, kNumber: inclusive, unless
  bool above_min = false;                 // the minimum itself is excluded
  bool below_max = false;                 // the maximum itself is excluded
  int decimals = 0;                       // kNumber: at most so many when > 0
  bool required = false;                  // must be present in a list's element
  std::vector<std::string> choices = {};  // kChoice: JSON texts
  std::string later = {};                 // set: accepts nothing but `choices`; says what is not built

  // The value lies in element `index` of its list, where it has one. `read` gets a value that has passed the checks.
  std::function<void(RunConfig&, size_t index, const json::Value&)> read = {};
  std::function<json::Value(const RunConfig&, size_t index)> write = {};
  std::function<void(RunConfig&, size_t)> resize = {};  // kList
  std::function<size_t(const RunConfig&)> size = {};    // kList

  std::string section() const;  // "train" of "train.steps", "" of "name"
  std::string name() const;     // "steps"
  std::string allowed() const;  // "an integer from 1 to 1000000 or null"
};

std::span<const ConfigKey> config_keys();

// What `config --schema` prints.
std::string describe_schema();

}  // namespace mhmoe::train
