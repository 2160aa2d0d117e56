// Strict JSON: a tree of values that know the file and line they came from, and a writer. No other dialect: duplicate
// keys, NaN, comments, trailing commas and trailing text are errors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace mhmoe::json {

enum class Kind : uint8_t { kNull, kBoolean, kInteger, kReal, kString, kArray, kObject };

std::string_view to_string(Kind kind);

struct MHMOE_API Value {
  Kind kind = Kind::kNull;
  bool boolean = false;
  int64_t integer = 0;
  double real = 0;           // of kReal, and of kInteger too
  std::string text;          // of kString; the number as it was written for numbers read from a file
  std::string key;           // the member's name, inside an object
  std::vector<Value> items;  // of kArray and kObject, in file order

  std::shared_ptr<const std::string> file;  // absent for values made by the program
  int line = 0;

  Value() = default;
  Value(bool value) : kind(Kind::kBoolean), boolean(value) {}  // NOLINT: values convert, so that trees read like JSON
  Value(int value) : Value(static_cast<int64_t>(value)) {}     // NOLINT
  Value(int64_t value) : kind(Kind::kInteger), integer(value), real(static_cast<double>(value)) {}  // NOLINT
  Value(double value) : kind(Kind::kReal), real(value) {}                                           // NOLINT
  Value(std::string value) : kind(Kind::kString), text(std::move(value)) {}                         // NOLINT
  Value(std::string_view value) : Value(std::string(value)) {}                                      // NOLINT
  Value(const char* value) : Value(std::string(value)) {}                                           // NOLINT
  static Value array();
  static Value object();

  bool is_number() const { return kind == Kind::kInteger || kind == Kind::kReal; }
  // The member of that name, or null. Objects only.
  const Value* find(std::string_view name) const;
  Value* find(std::string_view name);
  // Appends a member (objects) or an element (arrays); returns it.
  Value& add(std::string name, Value value);
  Value& add(Value value);
  // "FILE:LINE", or what stands in its place for values that no file holds.
  std::string where() const;
};

// Limits that keep a hostile file from using memory or stack.
struct Limits {
  size_t bytes = size_t{1} << 20;
  int depth = 64;
  size_t key_bytes = 512;
  // A value takes about 140 bytes of memory, and as little as 2 in a file.
  size_t values() const { return bytes / 16; }
};

// Both throw Error(code) with file, line, key and what was found; read_file throws Error(kMissingInput) for a file
// that is not there or is not a regular file.
MHMOE_API Value parse(std::string_view text, const std::string& file, ExitCode code, Limits limits = {});
MHMOE_API Value read_file(const std::string& path, ExitCode code, Limits limits = {});

// The member of that name and kind; an integer will do where a real is asked for. Throws Error(code) naming place, name
// and what was found.
MHMOE_API const Value& member(const Value& object, std::string_view name, Kind kind,
                              ExitCode code = ExitCode::kBadData);

// One line, or indented by two spaces with small leaves kept on one line. Numbers are the shortest text that reads back
// to the same value; non-finite numbers, which JSON cannot hold, become null.
MHMOE_API std::string to_line(const Value& value);
MHMOE_API std::string to_text(const Value& value);
// In double quotes, with JSON's escapes.
MHMOE_API std::string quote(std::string_view text);

}  // namespace mhmoe::json
