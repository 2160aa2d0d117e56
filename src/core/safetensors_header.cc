#include "core/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

namespace mhmoe {
namespace {

using Json = nlohmann::json;

constexpr std::pair<std::string_view, DType> kDTypes[] = {{"F32", DType::kF32}, {"BF16", DType::kBF16},
                                                          {"F64", DType::kF64}, {"I32", DType::kI32},
                                                          {"I64", DType::kI64}, {"U8", DType::kU8}};

// A state machine over the parser's events: sees duplicate keys, which a parsed document hides.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool null() override { return wrong("null"); }
  bool boolean(bool) override { return wrong("a boolean"); }
  bool number_float(double, const std::string&) override { return wrong("a number that is no whole number"); }
  bool number_integer(int64_t) override { return wrong("a negative number"); }
  bool binary(Json::binary_t&) override { return wrong("binary data"); }
  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kArray) return wrong("a number");
    if (value > static_cast<uint64_t>(INT64_MAX)) return wrong("a number above 2^63 - 1");
    if (numbers_.size() == kMaxNumbers) reject("more than {} numbers in '{}'", kMaxNumbers, key_);
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool string(std::string& value) override;
  bool start_object(size_t) override;
  bool key(std::string& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(ExitCode::kBadData, "'{}': the safetensors header is no valid JSON at its byte {}", path_, position);
  }

 private:
  enum class Place { kStart, kRoot, kTensor, kMetadata, kArray };
  static constexpr size_t kMaxNumbers = Tensor::kMaxRank;

  template <class... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> message, Args&&... args) {
    const std::string what = fmt::format(message, std::forward<Args>(args)...);
    if (place_ == Place::kTensor || place_ == Place::kArray) {
      fail(ExitCode::kBadData, "'{}': tensor '{}': {}", path_, header_.entries.back().name, what);
    }
    fail(ExitCode::kBadData, "'{}': safetensors header: {}", path_, what);
  }
  bool wrong(std::string_view found) {
    if (place_ == Place::kStart || place_ == Place::kRoot) reject("{} where an object belongs", found);
    if (place_ == Place::kMetadata) reject("__metadata__ '{}' is {}, and only strings are allowed", key_, found);
    reject("'{}' is or holds {}", key_, found);
  }
  void check_complete();

  const std::string& path_;
  SafetensorsHeader header_;
  Place place_ = Place::kStart;
  std::set<std::string> root_keys_, keys_;  // seen so far in the root, in the current object
  std::string key_;
  std::vector<int64_t> numbers_;
};

bool HeaderReader::string(std::string& value) {
  if (place_ == Place::kMetadata) {
    header_.metadata[key_] = value;
    return true;
  }
  if (place_ != Place::kTensor || key_ != "dtype") return wrong("a string");
  for (const auto& [name, dtype] : kDTypes) {
    if (name == value) {
      header_.entries.back().dtype = dtype;
      return true;
    }
  }
  reject("dtype '{}' is not supported; allowed: F32, BF16, F64, I32, I64, U8", value);
}

bool HeaderReader::start_object(size_t) {
  if (place_ == Place::kStart) {
    place_ = Place::kRoot;
  } else if (place_ == Place::kRoot) {
    keys_.clear();
    place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
    if (place_ == Place::kTensor) {
      if (header_.entries.size() == SafetensorsHeader::kMaxTensors) {
        fail(ExitCode::kBadData, "'{}': more than {} tensors", path_, SafetensorsHeader::kMaxTensors);
      }
      header_.entries.emplace_back().name = key_;
    }
  } else {
    return wrong("an object");
  }
  return true;
}

bool HeaderReader::key(std::string& name) {
  if (name.size() > SafetensorsHeader::kMaxNameBytes && place_ == Place::kRoot) {
    reject("a tensor's name has {} bytes, and {} are allowed", name.size(), SafetensorsHeader::kMaxNameBytes);
  }
  auto& seen = place_ == Place::kRoot ? root_keys_ : keys_;
  if (!seen.insert(name).second) reject("'{}' appears twice", name);
  if (place_ == Place::kTensor && name != "dtype" && name != "shape" && name != "data_offsets") {
    reject("unknown key '{}'; allowed: dtype, shape, data_offsets", name);
  }
  key_ = std::move(name);
  return true;
}

bool HeaderReader::end_object() {
  if (place_ == Place::kTensor) check_complete();
  place_ = Place::kRoot;
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (place_ != Place::kTensor || key_ == "dtype") return wrong("an array");
  place_ = Place::kArray;
  numbers_.clear();
  return true;
}

bool HeaderReader::end_array() {
  auto& entry = header_.entries.back();
  if (key_ == "shape") {
    entry.shape = numbers_;
  } else {
    if (numbers_.size() != 2) reject("data_offsets holds {} numbers, not 2", numbers_.size());
    entry.begin = static_cast<size_t>(numbers_[0]);
    entry.end = static_cast<size_t>(numbers_[1]);
  }
  place_ = Place::kTensor;
  return true;
}

void HeaderReader::check_complete() {
  for (const char* needed : {"dtype", "shape", "data_offsets"}) {
    if (!keys_.contains(needed)) reject("'{}' is missing", needed);
  }
  const auto& entry = header_.entries.back();
  size_t bytes = size_of(entry.dtype);
  for (const int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(dim), &bytes)) reject("its shape overflows 64 bits");
  }
  if (entry.begin > entry.end || entry.end - entry.begin != bytes) {
    reject("data_offsets [{}, {}] do not span the {} bytes of its shape and dtype", entry.begin, entry.end, bytes);
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view text, size_t data_bytes) {
  // The parser would take a NUL for the end of its input, and a byte order mark or spaces for a beginning.
  if (text.empty() || text.front() != '{' || text.find('\0') != text.npos) {
    fail(ExitCode::kBadData, "'{}' is no safetensors file: its header is no JSON object", path);
  }
  HeaderReader reader(path);
  Json::sax_parse(text.begin(), text.end(), &reader);
  SafetensorsHeader header = reader.take();
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  size_t position = 0;
  for (const auto& entry : header.entries) {
    if (entry.begin != position) {
      fail(ExitCode::kBadData, "'{}': tensor '{}' begins at data byte {} {} {}, where the one before it ends", path,
           entry.name, entry.begin, entry.begin < position ? "and overlaps" : "behind a hole: not at", position);
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    const std::string last =
        header.entries.empty() ? "" : fmt::format(" (the last is '{}')", header.entries.back().name);
    fail(ExitCode::kBadData, "'{}' is {}: {} bytes of data, and its tensors{} take {}", path,
         data_bytes < position ? "truncated" : "too long", data_bytes, last, position);
  }
  return header;
}

std::string format_safetensors_header(const SafetensorsHeader& header) {
  nlohmann::ordered_json root = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) root["__metadata__"] = header.metadata;
  for (const auto& entry : header.entries) {
    std::string_view dtype;
    for (const auto& [name, value] : kDTypes) {
      if (value == entry.dtype) dtype = name;
    }
    root[entry.name] = {{"dtype", dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text;
  try {
    text = root.dump();
  } catch (const nlohmann::json::exception&) {
    fail(ExitCode::kInternal, "a tensor's name or a metadata value is no valid UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace mhmoe
