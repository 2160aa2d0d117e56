#include "train/checkpoint_manifest.h"

#include <algorithm>
#include <optional>

#include "core/hash.h"

namespace mhmoe::train {
namespace {

using json::Kind;
using json::member;
using json::Value;

constexpr std::string_view kFormat = "mhmoe checkpoint";
constexpr json::Limits kLimits = {.bytes = size_t{64} << 20};

// What stands behind the text that the checksum is of.
std::string checksum_line(std::string_view text) {
  return fmt::format("  \"xxh3\": \"{}\"\n}}\n", to_hex(xxh3(text)));
}

bool checksum_is_right(std::string_view text) {
  const size_t length = checksum_line({}).size();
  if (text.size() < length) return false;
  const std::string_view body = text.substr(0, text.size() - length);
  return text.substr(body.size()) == checksum_line(body);
}

uint64_t hash_member(const Value& object) {
  const Value& value = member(object, "xxh3", Kind::kString);
  const std::optional<uint64_t> hash = from_hex(value.text);
  if (!hash) {
    fail(ExitCode::kBadData, "{}: 'xxh3' is {}, expected 16 hexadecimal digits", value.where(),
         json::quote(value.text));
  }
  return *hash;
}

int64_t count_member(const Value& object, std::string_view name) {
  const Value& value = member(object, name, Kind::kInteger);
  if (value.integer < 0) fail(ExitCode::kBadData, "{}: '{}' is {}, and negative", value.where(), name, value.integer);
  return value.integer;
}

// A newer format may have its checksum elsewhere, so its version is looked at first; an older one cannot be.
void check_version(const std::string& path, const Value& root, bool whole) {
  const Value* format = root.find("format");
  const Value* version = root.find("format_version");
  if (format == nullptr || format->text != kFormat || version == nullptr || version->kind != Kind::kInteger) {
    fail(ExitCode::kBadData, "{}: is not the manifest of a checkpoint", path);
  }
  if (version->integer == kCheckpointFormatVersion) return;
  fail(ExitCode::kBadData, "{}: written by format v{}{}, this build reads {}; {}", path, version->integer,
       whole ? "" : " (or damaged: its checksum is not right)", kCheckpointFormatVersion,
       version->integer > kCheckpointFormatVersion ? "use a newer mhmoe" : "there is no such version");
}

void check_file_name(const Value& file) {
  const std::string& name = file.key;
  if (name.find('/') != std::string::npos || name.starts_with('.')) {
    fail(ExitCode::kPermission, "{}: the file name {} leads out of the checkpoint", file.where(), json::quote(name));
  }
  constexpr std::string_view kDigits = "00000-of-00000.safetensors";
  const bool known = name.starts_with("model-") || name.starts_with("optimizer-");
  std::string digits = name.substr(std::min(name.find('-') + 1, name.size()));
  std::replace_if(
      digits.begin(), digits.end(), [](char c) { return c >= '1' && c <= '9'; }, '0');
  if (!known || digits != kDigits) {
    fail(ExitCode::kBadData, "{}: {} is no name of a checkpoint's file", file.where(), json::quote(name));
  }
}

Manifest::Tensor parse_tensor(const Value& value, const Manifest& manifest) {
  Manifest::Tensor tensor{.file = member(value, "file", Kind::kString).text, .shape = {}, .xxh3 = hash_member(value)};
  if (!manifest.files.contains(tensor.file)) {
    fail(ExitCode::kBadData, "{}: tensor '{}' is in {}, which is not among the files", value.where(), value.key,
         json::quote(tensor.file));
  }
  const Value& dtype = member(value, "dtype", Kind::kString);
  if (dtype.text != "F32") {
    fail(ExitCode::kBadData, "{}: tensor '{}' is {}, expected F32", dtype.where(), value.key, json::quote(dtype.text));
  }
  for (const Value& dim : member(value, "shape", Kind::kArray).items) {
    if (dim.kind != Kind::kInteger) {
      fail(ExitCode::kBadData, "{}: tensor '{}' has {} in its shape", dim.where(), value.key,
           json::to_string(dim.kind));
    }
    tensor.shape.push_back(dim.integer);
  }
  return tensor;
}

}  // namespace

std::string_view mhmoe_version() {
  return MHMOE_VERSION;
}

std::string format_manifest(const Manifest& manifest) {
  Value root = Value::object();
  root.add("format", kFormat);
  root.add("format_version", kCheckpointFormatVersion);
  root.add("mhmoe_version", manifest.mhmoe_version);
  root.add("run_id", manifest.run_id);
  root.add("step", manifest.step);
  root.add("state", manifest.state);
  root.add("config", json::parse(manifest.config, "config", ExitCode::kInternal, kLimits));
  Value& files = root.add("files", Value::object());
  for (const auto& [name, file] : manifest.files) {
    Value& entry = files.add(name, Value::object());
    entry.add("bytes", file.bytes);
    entry.add("xxh3", to_hex(file.xxh3));
  }
  Value& tensors = root.add("tensors", Value::object());
  for (const auto& [name, tensor] : manifest.tensors) {
    Value& entry = tensors.add(name, Value::object());
    entry.add("file", tensor.file);
    entry.add("dtype", "F32");
    Value& shape = entry.add("shape", Value::array());
    for (const int64_t dim : tensor.shape) shape.add(dim);
    entry.add("xxh3", to_hex(tensor.xxh3));
  }
  std::string text = json::to_text(root);
  text.replace(text.rfind("\n}"), std::string::npos, ",\n");
  text += checksum_line(text);
  MHMOE_CHECK(text.size() <= kLimits.bytes, "the checkpoint's manifest takes {} bytes, at most {} can be read",
              text.size(), kLimits.bytes);
  return text;
}

Manifest parse_manifest(const std::string& path, std::string_view text) {
  const bool whole = checksum_is_right(text);
  Value root;
  try {
    root = json::parse(text, path, ExitCode::kBadData, kLimits);
  } catch (const Error& error) {
    if (whole) throw;
    fail(ExitCode::kBadData, "{}: is damaged or cut off: its checksum is not right ({} bytes)", path, text.size());
  }
  if (root.kind != Kind::kObject) fail(ExitCode::kBadData, "{}: is not the manifest of a checkpoint", path);
  check_version(path, root, whole);
  if (!whole) fail(ExitCode::kBadData, "{}: is damaged: its checksum is not right ({} bytes)", path, text.size());
  Manifest manifest{.mhmoe_version = member(root, "mhmoe_version", Kind::kString).text,
                    .run_id = member(root, "run_id", Kind::kString).text,
                    .step = count_member(root, "step"),
                    .config = json::to_text(member(root, "config", Kind::kObject)),
                    .state = {},
                    .tensors = {},
                    .files = {}};
  if (const Value* state = root.find("state")) manifest.state = *state;
  for (const Value& file : member(root, "files", Kind::kObject).items) {
    check_file_name(file);
    manifest.files[file.key] = {.bytes = count_member(file, "bytes"), .xxh3 = hash_member(file)};
  }
  for (const Value& tensor : member(root, "tensors", Kind::kObject).items) {
    manifest.tensors[tensor.key] = parse_tensor(tensor, manifest);
  }
  return manifest;
}

}  // namespace mhmoe::train
