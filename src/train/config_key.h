// How the schema's table is written: one builder function for each kind of key. Private to config_schema.cc.
#pragma once

#include <type_traits>
#include <utility>

#include "train/config_schema.h"

namespace mhmoe::train::keys {

using json::Value;

template <class E>
using Names = std::vector<std::pair<E, std::string>>;

template <class A>
decltype(auto) access(const A& accessor, auto& config, size_t index) {
  if constexpr (std::is_invocable_v<A, RunConfig&, size_t>) {
    return accessor(config, index);
  } else {
    return accessor(config);
  }
}

template <class T>
struct Element {
  using type = T;
  static constexpr bool kOptional = false;
};
template <class T>
struct Element<std::optional<T>> {
  using type = T;
  static constexpr bool kOptional = true;
};

template <class T>
T from_json(const Value& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.boolean;
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(value.integer);
  } else if constexpr (std::is_same_v<T, double>) {
    return value.real;
  } else {
    return value.text;
  }
}

template <class T>
Value to_json(const T& value) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    return static_cast<int64_t>(value);
  } else {
    return value;
  }
}

// A key whose field holds the value itself, or an optional of it (then null is legal).
template <class A>
ConfigKey key(std::string path, KeyType type, std::string meaning, A accessor) {
  using Field = std::remove_cvref_t<decltype(access(accessor, std::declval<RunConfig&>(), 0))>;
  using T = typename Element<Field>::type;
  ConfigKey out{.path = std::move(path), .type = type, .meaning = std::move(meaning)};
  out.nullable = Element<Field>::kOptional;
  out.read = [accessor](RunConfig& config, size_t index, const Value& value) {
    auto& field = access(accessor, config, index);
    if constexpr (Element<Field>::kOptional) {
      field = value.kind == json::Kind::kNull ? Field() : Field(from_json<T>(value));
    } else {
      field = from_json<T>(value);
    }
  };
  out.write = [accessor](const RunConfig& config, size_t index) {
    const auto& field = access(accessor, config, index);
    if constexpr (Element<Field>::kOptional) {
      return field ? to_json(*field) : Value();
    } else {
      return to_json(field);
    }
  };
  return out;
}

template <class A>
ConfigKey integer(std::string path, double min, double max, std::string meaning, A accessor) {
  ConfigKey out = key(std::move(path), KeyType::kInteger, std::move(meaning), accessor);
  out.min = min;
  out.max = max;
  return out;
}

template <class A>
ConfigKey number(std::string path, double min, double max, std::string meaning, A accessor) {
  ConfigKey out = key(std::move(path), KeyType::kNumber, std::move(meaning), accessor);
  out.min = min;
  out.max = max;
  return out;
}

inline ConfigKey above_min(ConfigKey out) {
  out.above_min = true;
  return out;
}

inline ConfigKey below_max(ConfigKey out) {
  out.below_max = true;
  return out;
}

inline ConfigKey required(ConfigKey out) {
  out.required = true;
  return out;
}

inline ConfigKey decimals(ConfigKey out, int count) {
  out.decimals = count;
  return out;
}

// An integer field that spells null as 0.
inline ConfigKey zero_is_null(ConfigKey out) {
  out.nullable = true;
  out.read = [read = out.read](RunConfig& config, size_t index, const Value& value) {
    read(config, index, value.kind == json::Kind::kNull ? Value(0) : value);
  };
  out.write = [write = out.write](const RunConfig& config, size_t index) {
    const Value value = write(config, index);
    return value.integer == 0 ? Value() : value;
  };
  return out;
}

template <class A>
ConfigKey boolean(std::string path, std::string meaning, A accessor) {
  return key(std::move(path), KeyType::kBoolean, std::move(meaning), accessor);
}

template <class A>
ConfigKey string(std::string path, std::string meaning, A accessor) {
  return key(std::move(path), KeyType::kString, std::move(meaning), accessor);
}

template <class E, class A>
ConfigKey choice(std::string path, Names<E> names, std::string meaning, A accessor) {
  ConfigKey out{.path = std::move(path), .type = KeyType::kChoice, .meaning = std::move(meaning)};
  for (const auto& [value, name] : names) out.choices.push_back(json::quote(name));
  out.read = [accessor, names](RunConfig& config, size_t, const Value& value) {
    for (const auto& [candidate, name] : names) {
      if (name == value.text) accessor(config) = candidate;
    }
  };
  out.write = [accessor, names](const RunConfig& config, size_t) {
    for (const auto& [candidate, name] : names) {
      if (candidate == accessor(config)) return Value(name);
    }
    fail(ExitCode::kInternal, "a choice has a value without a name");
  };
  return out;
}

template <class A>
ConfigKey list(std::string path, std::string meaning, A accessor) {
  ConfigKey out{.path = std::move(path), .type = KeyType::kList, .meaning = std::move(meaning)};
  out.resize = [accessor](RunConfig& config, size_t size) {
    accessor(config).clear();
    accessor(config).resize(size);
  };
  out.size = [accessor](const RunConfig& config) { return accessor(config).size(); };
  return out;
}

// A key of a feature that is not built: only the values that mean "without it" are accepted, and nothing is stored.
// `accepted` are JSON texts, the default first; `missing` begins the sentence "... not available in this version".
inline ConfigKey later(std::string path, std::vector<std::string> accepted, const std::string& missing,
                       std::string meaning) {
  ConfigKey out{.path = std::move(path), .type = KeyType::kChoice, .meaning = std::move(meaning)};
  out.choices = std::move(accepted);
  out.later = missing + " not available in this version";
  out.write = [value = json::parse(out.choices[0], out.path, ExitCode::kInternal)](const RunConfig&, size_t) {
    return value;
  };
  return out;
}

}  // namespace mhmoe::train::keys
