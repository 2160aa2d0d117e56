#include <cmath>
#include <utility>

#include "core/json.h"

namespace mhmoe::json {
namespace {

constexpr size_t kInlineWidth = 100;

std::string scalar(const Value& value) {
  switch (value.kind) {
    case Kind::kBoolean:
      return value.boolean ? "true" : "false";
    case Kind::kInteger:
      return std::to_string(value.integer);
    case Kind::kReal:
      if (value.real == 0 && std::signbit(value.real)) return "-0.0";  // "-0" would be read as an integer
      return std::isfinite(value.real) ? fmt::format("{}", value.real) : "null";
    case Kind::kString:
      return quote(value.text);
    default:
      return "null";
  }
}

bool is_container(const Value& value) {
  return value.kind == Kind::kArray || value.kind == Kind::kObject;
}

bool is_leaf(const Value& value) {
  for (const Value& item : value.items) {
    if (is_container(item)) return false;
  }
  return true;
}

std::string on_one_line(const Value& value) {
  if (!is_container(value)) return scalar(value);
  const bool object = value.kind == Kind::kObject;
  std::string out(1, object ? '{' : '[');
  for (const Value& item : value.items) {
    if (out.size() > 1) out += ", ";
    if (object) out += quote(item.key) + ": ";
    out += on_one_line(item);
  }
  return out + (object ? '}' : ']');
}

void write_indented(std::string& out, const Value& value, size_t indent) {
  if (!is_container(value) || value.items.empty()) {
    out += on_one_line(value);
    return;
  }
  if (is_leaf(value)) {
    const std::string line = on_one_line(value);
    if (indent + line.size() <= kInlineWidth) {
      out += line;
      return;
    }
  }
  const bool object = value.kind == Kind::kObject;
  out += object ? "{\n" : "[\n";
  for (size_t i = 0; i < value.items.size(); ++i) {
    out.append(indent + 2, ' ');
    if (object) out += quote(value.items[i].key) + ": ";
    write_indented(out, value.items[i], indent + 2);
    out += i + 1 < value.items.size() ? ",\n" : "\n";
  }
  out.append(indent, ' ');
  out += object ? '}' : ']';
}

}  // namespace

std::string_view to_string(Kind kind) {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBoolean:
      return "a boolean";
    case Kind::kInteger:
      return "an integer";
    case Kind::kReal:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "an array";
    case Kind::kObject:
      return "an object";
  }
  return "?";
}

Value Value::array() {
  Value value;
  value.kind = Kind::kArray;
  return value;
}

Value Value::object() {
  Value value;
  value.kind = Kind::kObject;
  return value;
}

const Value* Value::find(std::string_view name) const {
  if (kind != Kind::kObject) return nullptr;
  for (const Value& item : items) {
    if (item.key == name) return &item;
  }
  return nullptr;
}

Value* Value::find(std::string_view name) {
  return const_cast<Value*>(std::as_const(*this).find(name));
}

Value& Value::add(std::string name, Value value) {
  value.key = std::move(name);
  return add(std::move(value));
}

Value& Value::add(Value value) {
  return items.emplace_back(std::move(value));
}

std::string Value::where() const {
  if (!file) return "config";
  return line > 0 ? fmt::format("{}:{}", *file, line) : *file;
}

const Value& member(const Value& object, std::string_view name, Kind kind, ExitCode code) {
  const Value* found = object.find(name);
  if (found == nullptr) fail(code, "{}: '{}' is missing", object.where(), name);
  const bool fits = found->kind == kind || (kind == Kind::kReal && found->kind == Kind::kInteger);
  if (!fits) {
    fail(code, "{}: '{}' is {}, expected {}", found->where(), name, to_string(found->kind), to_string(kind));
  }
  return *found;
}

std::string to_line(const Value& value) {
  return on_one_line(value);
}

std::string to_text(const Value& value) {
  std::string out;
  write_indented(out, value, 0);
  return out + "\n";
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

}  // namespace mhmoe::json
