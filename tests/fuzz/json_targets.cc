#include "core/hash.h"
#include "core/json.h"
#include "data/sealed_json.h"
#include "data/shard_info.h"
#include "fuzz/targets.h"
#include "train/checkpoint_manifest.h"
#include "train/config.h"

namespace mhmoe::fuzz {
namespace {

void read_info(std::string_view text) {
  data::ShardInfo info;
  if (!accepts([&] { info = data::parse_shard_info(text, "x.json"); })) return;
  const std::string once = data::seal(to_json(info));
  require(data::seal(to_json(data::parse_shard_info(once, "x.json"))) == once, "written and read, it is the same");
}

void read_manifest(std::string_view text) {
  train::Manifest manifest;
  if (!accepts([&] { manifest = train::parse_manifest("manifest.json", text); })) return;
  for (const auto& [name, tensor] : manifest.tensors) require(manifest.files.contains(tensor.file), "files are known");
  const std::string once = train::format_manifest(manifest);
  require(train::format_manifest(train::parse_manifest("manifest.json", once)) == once,
          "written and read, it is the same");
}

}  // namespace

void config(std::string_view input) {
  train::RunConfig config;
  if (!accepts([&] { config = train::parse_config(input, "c.json"); })) return;
  const std::string once = train::resolved_config(config);
  require(train::resolved_config(train::parse_config(once, "resolved")) == once, "written and read, it is the same");
}

// Few inputs have the right checksum, so it is put right as well.
void sidecar(std::string_view input) {
  read_info(input);
  json::Value object;
  if (accepts([&] { object = json::parse(input, "x.json", ExitCode::kBadData); }) &&
      object.kind == json::Kind::kObject && !object.items.empty()) {
    read_info(data::seal(object));
  }
}

void manifest(std::string_view input) {
  read_manifest(input);
  std::string text(input.substr(0, input.rfind("  \"xxh3\"")));
  text += fmt::format("  \"xxh3\": \"{}\"\n}}\n", to_hex(xxh3(text)));
  read_manifest(text);
}

}  // namespace mhmoe::fuzz
