// What is wrong with a value or a name is found for every key of the schema.
#include <algorithm>
#include <cmath>

#include "train/config_fixture.h"
#include "train/config_schema.h"

namespace mhmoe::train {
namespace {

// A document that sets one key, or several of one section.
struct Document {
  std::string text;
  int line = 0;  // of the first of them
};

Document document(const std::string& path, const std::vector<std::string>& members) {
  Document out{"{\n", 1};
  std::string closing = "}\n";
  size_t begin = 0;
  for (size_t dot; (dot = path.find('.', begin)) != std::string::npos; begin = dot + 1, ++out.line) {
    std::string name = path.substr(begin, dot - begin);
    const bool list = name.ends_with("[]");
    if (list) name.resize(name.size() - 2);
    out.text += "\"" + name + (list ? "\": [{\n" : "\": {\n");
    closing = (list ? "}]" : "}") + closing;
  }
  for (const ConfigKey& key : config_keys()) {
    if (!key.required || key.path == path || key.section() + "." != path.substr(0, begin)) continue;
    out.text += "\"" + key.name() + "\": \"filled\",\n";
    ++out.line;
  }
  for (size_t i = 0; i < members.size(); ++i) out.text += members[i] + (i + 1 < members.size() ? ",\n" : "\n");
  ++out.line;
  out.text += closing;
  return out;
}

std::string member(const std::string& name, const std::string& value) {
  return "\"" + name + "\": " + value;
}

// A legal value of the key, as JSON.
std::string legal(const ConfigKey& key) {
  switch (key.type) {
    case KeyType::kList:
      return "[]";
    case KeyType::kChoice:
      return key.choices[0];
    case KeyType::kString:
      return "\"text\"";
    default:
      break;
  }
  RunConfig config;
  config.data.train.resize(1);
  return json::to_line(key.write(config, 0));
}

std::vector<std::string> wrong_types(const ConfigKey& key) {
  std::vector<std::string> all = {"{}"};
  const auto lacks_choice = [&](const char* text) {
    return std::find(key.choices.begin(), key.choices.end(), text) == key.choices.end();
  };
  if (!key.nullable && lacks_choice("null")) all.push_back("null");
  if (key.type != KeyType::kBoolean) all.push_back("true");
  if (key.type != KeyType::kString) all.insert(all.end(), {"\"some text\"", "\"\"", "\"1\""});
  if (key.type != KeyType::kList) all.push_back("[3]");
  if (key.type != KeyType::kNumber && key.type != KeyType::kInteger) all.push_back("17");
  if (key.type != KeyType::kNumber) all.push_back("2.5");
  return all;
}

class EveryKey : public ConfigTest {
 protected:
  // The value must be refused, with file, line and key.
  void expect_refused(const ConfigKey& key, const std::string& value) const {
    const Document doc = document(key.path, {member(key.name(), value)});
    const std::string error = error_of(doc.text);
    EXPECT_TRUE(contains(error, fmt::format("c.json:{}: ", doc.line))) << key.path << " = " << value << ": " << error;
    EXPECT_TRUE(contains(error, key.name() + ": found")) << key.path << " = " << value << ": " << error;
  }
};

TEST_F(EveryKey, DefaultIsAccepted) {
  for (const ConfigKey& key : config_keys()) {
    const std::string outcome = error_of(document(key.path, {member(key.name(), legal(key))}).text);
    EXPECT_EQ(outcome, "accepted") << key.path;
  }
}

TEST_F(EveryKey, BelowMinimumAndAboveMaximumAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    if (key.type != KeyType::kInteger && key.type != KeyType::kNumber) continue;
    const bool integer = key.type == KeyType::kInteger;
    const auto text = [&](double value) { return integer ? fmt::format("{:.0f}", value) : fmt::format("{}", value); };
    expect_refused(key, text(key.above_min ? key.min : key.min - (integer ? 1 : 1e-9)));
    expect_refused(key, text(key.below_max ? key.max : integer ? key.max + 1 : key.max * 1.000001));
    expect_refused(key, "-1e300");
    expect_refused(key, "123456789012345678901234567890");
  }
}

TEST_F(EveryKey, WrongTypesAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    for (const std::string& value : wrong_types(key)) expect_refused(key, value);
  }
}

TEST_F(EveryKey, NotANumberIsRefused) {
  for (const ConfigKey& key : config_keys()) {
    for (const char* value : {"NaN", "Infinity", "-Infinity", "1e400"}) expect_refused(key, value);
  }
}

TEST_F(EveryKey, MisspeltNamesAreRefusedWithTheRightOne) {
  for (const ConfigKey& key : config_keys()) {
    std::string wrong = key.name();
    std::swap(wrong[wrong.size() / 2], wrong[wrong.size() / 2 - 1]);
    if (wrong == key.name()) wrong += "x";
    const Document doc = document(key.path, {member(wrong, legal(key))});
    const std::string error = error_of(doc.text);
    EXPECT_TRUE(contains(error, fmt::format("c.json:{}: ", doc.line))) << error;
    EXPECT_TRUE(contains(error, wrong + ": unknown key; did you mean " + key.path + "?")) << error;
  }
}

// Every way to get one letter wrong: left out, twice, or another one.
TEST_F(EveryKey, NoWrongLetterGoesUnnoticed) {
  const auto is_key = [](const std::string& path) {
    const auto known = [&](const ConfigKey& key) { return key.path == path || key.path.starts_with(path + "."); };
    return std::any_of(config_keys().begin(), config_keys().end(), known);
  };
  for (const ConfigKey& key : config_keys()) {
    const std::string name = key.name(), section = key.path.substr(0, key.path.size() - name.size());
    for (size_t i = 0; i < name.size(); ++i) {
      for (const std::string& letters : {std::string(), std::string(2, name[i]), std::string("q")}) {
        std::string wrong = name;
        wrong.replace(i, 1, letters);
        if (wrong.empty() || is_key(section + wrong)) continue;
        const bool ambiguous = wrong.starts_with("beta") && name.starts_with("beta");  // as near to beta1 as to beta2
        try {
          parse_config(document(key.path, {member(wrong, legal(key))}).text, "c.json");
          ADD_FAILURE() << key.path << ": " << wrong << " was accepted";
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ExitCode::kConfig);
          EXPECT_TRUE(contains(
              error.what(), wrong + ": unknown key; did you mean " + (ambiguous ? section + "beta" : key.path + "?")))
              << error.what();
        }
      }
    }
  }
}

TEST_F(EveryKey, DuplicatesAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    const std::string one = member(key.name(), legal(key));
    const Document doc = document(key.path, {one, one});
    const std::string error = error_of(doc.text);
    EXPECT_TRUE(contains(error, fmt::format("c.json:{}: ", doc.line + 1))) << error;
    EXPECT_TRUE(contains(error, key.name() + ": the key appears twice")) << error;
    EXPECT_TRUE(contains(error, fmt::format("line {}", doc.line))) << error;
  }
}

TEST_F(EveryKey, WrongSectionsAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    for (const std::string section : {"", "log.", "train.learning_rate."}) {
      const std::string path = section + key.name();
      const auto is_known = [&](const ConfigKey& other) {
        return other.path == path || other.path.starts_with(path + ".");
      };
      if (std::any_of(config_keys().begin(), config_keys().end(), is_known)) continue;
      const Document doc = document(path, {member(key.name(), legal(key))});
      const std::string error = error_of(doc.text);
      EXPECT_TRUE(contains(error, fmt::format("c.json:{}: {}: unknown key", doc.line, path))) << error;
    }
  }
}

TEST_F(EveryKey, IsListedBySchemaAndWrittenBack) {
  const std::string schema = describe_schema();
  const std::string resolved = resolved_config(RunConfig{});
  for (const ConfigKey& key : config_keys()) {
    EXPECT_TRUE(contains(schema, "\n" + key.path + ": ")) << key.path;
    if (contains(key.path, "[]")) continue;
    EXPECT_TRUE(contains(resolved, "\"" + key.name() + "\": ")) << key.path;
  }
}

// Setting a key changes what the resolved config says of it and nothing else: no accessor points at another's field.
TEST_F(EveryKey, ReachesItsOwnField) {
  for (const ConfigKey& key : config_keys()) {
    if (!key.later.empty() || contains(key.path, "[]") || key.type == KeyType::kList) continue;
    RunConfig config;
    const std::string before = json::to_line(key.write(config, 0));
    key.read(config, 0, json::parse(another_value(key, before), "value", ExitCode::kConfig));
    for (const ConfigKey& other : config_keys()) {
      if (!other.write || contains(other.path, "[]")) continue;
      const bool same = json::to_line(other.write(config, 0)) == json::to_line(other.write(RunConfig{}, 0));
      EXPECT_EQ(same, other.path != key.path) << key.path << " set, " << other.path << " looked at";
    }
  }
}

}  // namespace
}  // namespace mhmoe::train
