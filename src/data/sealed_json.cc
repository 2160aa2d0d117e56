#include "data/sealed_json.h"

#include "core/hash.h"

namespace mhmoe::data {
namespace {

constexpr std::string_view kMember = ",\n  \"checksum\": \"";
// Hashes of the blocks of a shard of 13 TB.
constexpr json::Limits kLimits = {.bytes = size_t{256} << 20, .depth = 8};

std::string sealed(std::string_view body) {
  return fmt::format("{}{}{}\"\n}}\n", body, kMember, to_hex(xxh3(body)));
}

const json::Value& member(const json::Value& object, const char* name, json::Kind kind) {
  const json::Value* found = object.find(name);
  if (found == nullptr || found->kind != kind) {
    fail(ExitCode::kBadData, "{}: expected the key \"{}\" with {}", object.where(), name, json::to_string(kind));
  }
  return *found;
}

uint64_t hash_of(const json::Value& value) {
  const auto hash = from_hex(value.kind == json::Kind::kString ? value.text : "");
  if (!hash) fail(ExitCode::kBadData, "{}: expected 16 hexadecimal digits, found {}", value.where(), value.text);
  return *hash;
}

}  // namespace

std::string seal(const json::Value& object) {
  std::string text = json::to_text(object);
  text.resize(text.find_last_not_of(" \n", text.rfind('}') - 1) + 1);
  return sealed(text);
}

json::Value unseal(std::string_view text, const std::string& path, std::string_view remedy) {
  const size_t end = text.rfind(kMember);
  if (end == std::string_view::npos || sealed(text.substr(0, end)) != text) {
    fail(ExitCode::kBadData,
         "{}: its checksum is missing or not that of its text: damaged, changed by hand, or of an older version; {}",
         path, remedy);
  }
  return json::parse(text, path, ExitCode::kBadData, kLimits);
}

int64_t count_member(const json::Value& object, const char* name) {
  const json::Value& value = member(object, name, json::Kind::kInteger);
  if (value.integer < 0) fail(ExitCode::kBadData, "{}: {}: {} is negative", value.where(), name, value.integer);
  return value.integer;
}

const json::Value& object_member(const json::Value& object, const char* name) {
  return member(object, name, json::Kind::kObject);
}

const std::string& string_member(const json::Value& object, const char* name) {
  return member(object, name, json::Kind::kString).text;
}

uint64_t hash_member(const json::Value& object, const char* name) {
  return hash_of(member(object, name, json::Kind::kString));
}

std::vector<uint64_t> hashes_member(const json::Value& object, const char* name) {
  std::vector<uint64_t> hashes;
  for (const json::Value& item : member(object, name, json::Kind::kArray).items) hashes.push_back(hash_of(item));
  return hashes;
}

}  // namespace mhmoe::data
