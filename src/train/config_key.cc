#include "train/config_schema.h"

namespace mhmoe::train {
namespace {

std::string number_text(double value) {
  return fmt::format("{}", value);
}

}  // namespace

std::string ConfigKey::section() const {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

std::string ConfigKey::name() const {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

std::string ConfigKey::allowed() const {
  const std::string or_null = nullable ? " or null" : "";
  switch (type) {
    case KeyType::kBoolean:
      return "true or false" + or_null;
    case KeyType::kInteger:
      return fmt::format("an integer from {} to {}{}", number_text(min), number_text(max), or_null);
    case KeyType::kNumber: {
      std::string out = fmt::format("a number {} {} and {} {}", above_min ? "above" : "from", number_text(min),
                                    below_max ? "below" : "up to", number_text(max));
      if (decimals > 0) out += fmt::format(" with at most {} decimals", decimals);
      return out + or_null;
    }
    case KeyType::kString:
      return "a string" + or_null;
    case KeyType::kChoice: {
      std::string out;
      for (const std::string& name : choices) {
        out += (out.empty() ? "" : " or ") + name;
      }
      return out;
    }
    case KeyType::kList:
      return "a list of objects";
  }
  return "";
}

std::string describe_schema() {
  const RunConfig defaults;
  std::string out =
      "Configuration keys: type and range, [default], meaning. Any object may hold a \"comment\";\n"
      "\"extends\": \"base.json\" at the top merges over another file of the same folder.\n\n";
  for (const ConfigKey& key : config_keys()) {
    std::string preset = key.required ? "required" : "";
    if (key.type == KeyType::kList) preset = "[]";
    if (preset.empty() && key.write) {
      RunConfig one = defaults;
      one.data.train.resize(1);
      one.data.validation.resize(1);
      preset = json::to_line(key.write(one, 0));
    }
    out += fmt::format("{}: {}{}\n    {}{}\n", key.path, key.allowed(), preset.empty() ? "" : "  [" + preset + "]",
                       key.meaning, key.later.empty() ? "" : " (other values: " + key.later + ")");
  }
  return out;
}

}  // namespace mhmoe::train
