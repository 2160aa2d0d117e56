#include "core/json.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "core/file.h"

namespace mhmoe::json {
namespace {

// Lets nlohmann's lexer read text while noting how far it got. The lexer looks one character past a number, so the
// line of a token is the line of the last character that is not white space.
struct Progress {
  int line = 1;
  int token_line = 1;
};

class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, Progress* progress) : at_(at), progress_(progress) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    if (*at_ == '\n') {
      ++progress_->line;
    } else if (*at_ != ' ' && *at_ != '\t' && *at_ != '\r') {
      progress_->token_line = progress_->line;
    }
    ++at_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  Progress* progress_;
};

// The run of number or word characters around an error, else what the lexer had read of the token.
std::string found_at(std::string_view text, size_t position, const std::string& last_token) {
  const auto is_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::strchr("+-._", c); };
  if (position == 0 || position > text.size() || !text[position - 1] || !is_word(text[position - 1])) {
    return last_token.empty() ? "the end of the file" : quote(last_token.substr(0, 40));
  }
  size_t begin = position - 1, end = position;
  while (begin > 0 && text[begin - 1] && is_word(text[begin - 1])) --begin;
  while (end < text.size() && text[end] && is_word(text[end])) ++end;
  return std::string(text.substr(begin, std::min<size_t>(end - begin, 40)));
}

// Builds the tree; every event returns true, errors throw.
class Builder {
 public:
  using number_integer_t = int64_t;
  using number_unsigned_t = uint64_t;
  using number_float_t = double;
  using string_t = std::string;
  using binary_t = nlohmann::json::binary_t;

  Builder(std::string_view text, const std::string& file, ExitCode code, const Limits& limits, const Progress& progress)
      : text_(text), file_(std::make_shared<std::string>(file)), code_(code), limits_(limits), progress_(progress) {}

  bool null() { return add(Value()); }
  bool boolean(bool value) { return add(Value(value)); }
  bool number_integer(int64_t value) { return add_number(Value(value), std::to_string(value)); }
  bool number_unsigned(uint64_t value) {
    const bool fits = value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return add_number(fits ? Value(static_cast<int64_t>(value)) : Value(static_cast<double>(value)),
                      std::to_string(value));
  }
  bool number_float(double value, const std::string& literal) { return add_number(Value(value), literal); }
  bool string(std::string& value) {
    if (value.find('\0') != std::string::npos) fail_here("a string holds the character NUL, which nothing accepts");
    return add(Value(std::move(value)));
  }
  bool binary(binary_t&) { return false; }
  bool start_object(size_t) { return open(Value::object()); }
  bool start_array(size_t) { return open(Value::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    if (name.size() > limits_.key_bytes) {
      fail_here(fmt::format("a key of {} bytes; at most {} are allowed", name.size(), limits_.key_bytes));
    }
    pending_key_ = name;
    pending_line_ = progress_.token_line;
    const auto [first, added] = keys_.back().emplace(name, pending_line_);
    if (!added) {
      fail_here(fmt::format("the key appears twice in one object (first on line {}); remove one", first->second));
    }
    has_key_ = true;
    return true;
  }

  bool parse_error(size_t position, const std::string& last_token, const nlohmann::detail::exception& error) {
    const std::string found = found_at(text_, position, last_token);
    if (found == "NaN" || found == "nan" || found.ends_with("Infinity") || found.ends_with("inf")) {
      fail_here(fmt::format("found {}, expected a JSON value; numbers must be finite", found));
    }
    if (error.id == 406) fail_here(fmt::format("found {}, which no double can hold", found));
    std::string what = error.what();
    what = what.substr(what.find("] ") == std::string::npos ? 0 : what.find("] ") + 2);
    if (const auto colon = what.find(": "); colon != std::string::npos) what = what.substr(colon + 2);
    if (const auto tail = what.find("; last read"); tail != std::string::npos) what.resize(tail);
    fail_here(fmt::format("found {}: not valid JSON ({})", found, what));
  }

  Value take() { return std::move(root_); }

 private:
  bool add_number(Value value, std::string literal) {
    value.text = std::move(literal);
    return add(std::move(value));
  }

  // Gives the value its name, file and line.
  Value placed(Value value) {
    value.file = file_;
    value.line = has_key_ ? pending_line_ : progress_.token_line;
    value.key = std::exchange(pending_key_, {});
    has_key_ = false;
    return value;
  }

  bool attach(Value value) {
    if (++values_ > limits_.values()) fail_here(fmt::format("more than {} values", limits_.values()));
    (open_.empty() ? root_ : open_.back().items.emplace_back()) = std::move(value);
    return true;
  }

  bool add(Value value) { return attach(placed(std::move(value))); }

  bool open(Value value) {
    if (static_cast<int>(open_.size()) >= limits_.depth) {
      fail_here(fmt::format("nested more than {} levels deep", limits_.depth));
    }
    open_.push_back(placed(std::move(value)));
    keys_.emplace_back();
    return true;
  }

  bool close() {
    Value done = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    return attach(std::move(done));
  }

  [[noreturn]] void fail_here(const std::string& message) const {
    std::string path;
    for (const Value& value : open_) {
      if (!value.key.empty()) path += value.key + ".";
    }
    path += pending_key_;
    if (path.ends_with('.')) path.pop_back();
    throw Error(code_,
                fmt::format("{}:{}: {}{}{}", *file_, progress_.token_line, path, path.empty() ? "" : ": ", message));
  }

  std::string_view text_;
  std::shared_ptr<const std::string> file_;
  ExitCode code_;
  Limits limits_;
  const Progress& progress_;
  std::vector<Value> open_;
  std::vector<std::unordered_map<std::string, int>> keys_;  // line of each key of the open objects
  Value root_;
  size_t values_ = 0;
  std::string pending_key_;
  int pending_line_ = 0;
  bool has_key_ = false;
};

}  // namespace

Value parse(std::string_view text, const std::string& file, ExitCode code, Limits limits) {
  if (text.size() > limits.bytes) fail(code, "{}: {} bytes; at most {} are read", file, text.size(), limits.bytes);
  // The lexer would take a NUL for the end of the text.
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    fail(code, "{}:{}: holds the character NUL at byte {}: not valid JSON", file,
         1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(nul), '\n'), nul);
  }
  Progress progress;
  Builder builder(text, file, code, limits, progress);
  nlohmann::json::sax_parse(CountingIterator(text.data(), &progress),
                            CountingIterator(text.data() + text.size(), &progress), &builder);
  return builder.take();
}

Value read_file(const std::string& path, ExitCode code, Limits limits) {
  const InputFile file(path);
  if (file.size() > limits.bytes) fail(code, "{}: {} bytes; at most {} are read", path, file.size(), limits.bytes);
  return parse(file.read_whole(), path, code, limits);
}

}  // namespace mhmoe::json
