#include "failures.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

#include "call.h"
#include "emulator/fault.h"

namespace emulator {
namespace {

[[noreturn]] void refuse(std::string_view item) {
  throw Fault("EMULATOR_FAIL: '" + std::string(item) +
              "': allowed: no_driver, old_driver, no_device, no_image, capability:M.m, malloc:N, memory:BYTES, "
              "launch:N, fault:N");
}

template <class Int>
Int parse_number(std::string_view item, std::string_view digits) {
  Int value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) refuse(item);
  return value;
}

void parse_item(std::string_view item, Failures& out) {
  const size_t colon = item.find(':');
  const std::string_view name = item.substr(0, colon);
  if (colon == std::string_view::npos) {
    if (name == "no_driver") return void(out.no_driver = true);
    if (name == "old_driver") return void(out.old_driver = true);
    if (name == "no_device") return void(out.no_device = true);
    if (name == "no_image") return void(out.no_image = true);
    refuse(item);
  }
  const std::string_view value = item.substr(colon + 1);
  if (name == "capability") {
    const size_t dot = value.find('.');
    if (dot == std::string_view::npos) refuse(item);
    out.major = parse_number<int>(item, value.substr(0, dot));
    out.minor = parse_number<int>(item, value.substr(dot + 1));
  } else if (name == "malloc") {
    out.malloc = parse_number<uint64_t>(item, value);
  } else if (name == "memory") {
    out.memory = parse_number<size_t>(item, value);
  } else if (name == "launch") {
    out.launch = parse_number<uint64_t>(item, value);
  } else if (name == "fault") {
    out.fault = parse_number<uint64_t>(item, value);
  } else {
    refuse(item);
  }
}

Failures parse(std::string_view text) {
  Failures out;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    parse_item(text.substr(0, comma), out);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

}  // namespace

Failures& failures() {
  static auto* text = new std::string;
  static auto* current = new Failures;
  const char* variable = std::getenv("EMULATOR_FAIL");
  const std::string_view now = variable == nullptr ? "" : variable;
  if (now != *text) {
    *current = parse(now);
    *text = now;
    break_device(cudaSuccess);  // as in a new program
  }
  return *current;
}

}  // namespace emulator
