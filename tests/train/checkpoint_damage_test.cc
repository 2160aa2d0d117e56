// Every bit and every length of what a save wrote; other versions of the format.
#include <gtest/gtest.h>

#include "checkpoint_fixture.h"
#include "core/hash.h"

namespace mhmoe::train {
namespace {

class CheckpointDamage : public CheckpointTest {
 protected:
  // What is wrong with the checkpoint, by reading all of it.
  Thrown fault() const {
    return thrown_by([&] { Checkpoint(path(7)).verify(); });
  }
  // Files of the checkpoint with their bytes.
  std::map<fs::path, std::string> files() const {
    std::map<fs::path, std::string> found;
    for (const auto& entry : fs::directory_iterator(path(7))) found[entry.path()] = read_bytes(entry.path());
    return found;
  }
};

// Row 21.
TEST_F(CheckpointDamage, EveryFlippedBitIsFoundAndNamed) {
  write_checkpoint(folder_, make_snapshot(7));
  // Which tensor a byte of a file is in.
  const auto tensor_at = [&](const fs::path& file, size_t position) -> std::string {
    if (file.extension() != ".safetensors") return "";
    const SafetensorsReader tensors(file.string());
    for (const std::string& name : tensors.names()) {
      const size_t begin = tensors.offset(name);
      if (position >= begin && position < begin + tensors.at(name).bytes()) return name;
    }
    return "";
  };
  for (const auto& [file, bytes] : files()) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    for (size_t position = 0; position < bytes.size(); ++position) {
      const std::string tensor = tensor_at(file, position);
      const auto put = [&](int byte) {
        stream.seekp(static_cast<std::streamoff>(position)).put(static_cast<char>(byte)).flush();
      };
      for (int bit = 0; bit < 8; ++bit) {
        put(bytes[position] ^ (1 << bit));
        const Thrown thrown = fault();
        ASSERT_EQ(thrown.code, ExitCode::kBadData) << file << " byte " << position << " bit " << bit;
        ASSERT_TRUE(thrown.says(file.filename())) << thrown.message;
        if (!tensor.empty()) {
          ASSERT_TRUE(thrown.says(fmt::format("'{}'", tensor))) << thrown.message;
        }
      }
      put(bytes[position]);
    }
  }
  EXPECT_EQ(fault().code, ExitCode::kOk);
}

// Row 20, and bytes too many.
TEST_F(CheckpointDamage, EveryTruncationIsFoundAndNamed) {
  write_checkpoint(folder_, make_snapshot(7));
  for (const auto& [file, bytes] : files()) {
    for (size_t length = 0; length <= bytes.size() + 1; ++length) {
      if (length == bytes.size()) continue;
      write_bytes(file, length < bytes.size() ? bytes.substr(0, length) : bytes + '\n');
      const Thrown thrown = fault();
      ASSERT_EQ(thrown.code, ExitCode::kBadData) << file << " cut to " << length;
      ASSERT_TRUE(thrown.says(file.filename())) << thrown.message;
    }
    write_bytes(file, bytes);
  }
  EXPECT_EQ(fault().code, ExitCode::kOk);
}

// Between being verified and being used, or on the way to another rank than the one that verified it.
TEST_F(CheckpointDamage, WhatChangesAfterItWasVerifiedIsNotUsed) {
  write_checkpoint(folder_, make_snapshot(7));
  const Checkpoint checkpoint = find_checkpoint(folder_);
  const std::vector<SafetensorsReader> files = checkpoint.open("model");
  const SafetensorsReader& file = files[0];
  const std::string last = file.names().back();
  std::fstream(file.path(), std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(file.offset(last)))
      .put('\x55');
  std::vector<std::byte> bytes(file.file().size());
  file.read(file.names().front(), bytes.data());
  const Thrown thrown = thrown_by([&] { file.read(last, bytes.data()); });
  EXPECT_EQ(thrown.code, ExitCode::kBadData);
  EXPECT_TRUE(thrown.says(fmt::format("tensor '{}' is damaged", last))) << thrown.message;
  EXPECT_TRUE(thrown_by([&] { checkpoint.read("model"); }).says("is damaged"));
}

// Row 28. A checkpoint that the first version of the format wrote is kept and must always load.
TEST_F(CheckpointDamage, FormatVersion1Loads) {
  const Checkpoint checkpoint(MHMOE_SOURCE_DIR "/tests/train/checkpoint_v1/step-00000012");
  checkpoint.verify();
  const Snapshot snapshot = make_snapshot(12);
  EXPECT_EQ(checkpoint.step(), 12);
  EXPECT_EQ(checkpoint.run_id(), "run-1");
  EXPECT_EQ(checkpoint.state().find("run_hash")->text, snapshot.state.find("run_hash")->text);
  const auto model = checkpoint.read("model"), optimizer = checkpoint.read("optimizer");
  for (const auto* tensors : {&snapshot.model, &snapshot.optimizer}) {
    for (const auto& [name, tensor, scalar] : *tensors) {
      const std::vector<double> values = (tensors == &snapshot.model ? model : optimizer)[0].doubles(name);
      EXPECT_TRUE(std::equal(values.begin(), values.end(), tensor.as<float>())) << name;
    }
  }
}

TEST_F(CheckpointDamage, NewerFormatVersionsAreNamed) {
  write_checkpoint(folder_, make_snapshot(7));
  const fs::path manifest = fs::path(path(7)) / "manifest.json";
  std::string text = read_bytes(manifest);
  const std::string version = "\"format_version\": 1";
  text.replace(text.find(version), version.size(), "\"format_version\": 7");
  write_bytes(manifest, text);
  EXPECT_TRUE(fault().says("written by format v7 (or damaged")) << fault().message;
  text.resize(text.rfind("  \"xxh3\""));
  write_bytes(manifest, text + fmt::format("  \"xxh3\": \"{}\"\n}}\n", to_hex(xxh3(text))));
  EXPECT_EQ(fault().code, ExitCode::kBadData);
  EXPECT_TRUE(fault().says("written by format v7, this build reads 1")) << fault().message;
  EXPECT_TRUE(thrown_by([&] { newest_checkpoint(folder_); }).says("written by format v7"));
}

// Names in a manifest whose checksum is right lead nowhere.
TEST_F(CheckpointDamage, FileNamesStayInside) {
  write_checkpoint(folder_, make_snapshot(7));
  const fs::path manifest = fs::path(path(7)) / "manifest.json";
  const std::string good = read_bytes(manifest), name = "optimizer-00001-of-00001.safetensors";
  const std::map<std::string, ExitCode> names = {{"../../elsewhere", ExitCode::kPermission},
                                                 {"/etc/passwd", ExitCode::kPermission},
                                                 {"..", ExitCode::kPermission},
                                                 {"manifest.json", ExitCode::kBadData},
                                                 {"optimizer-00001-of-00001.safetensors ", ExitCode::kBadData}};
  for (const auto& [bad, code] : names) {
    std::string text = good.substr(0, good.rfind("  \"xxh3\""));
    for (size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += bad.size()) {
      text.replace(at, name.size(), bad);
    }
    write_bytes(manifest, text + fmt::format("  \"xxh3\": \"{}\"\n}}\n", to_hex(xxh3(text))));
    EXPECT_EQ(fault().code, code) << fault().message;
    EXPECT_TRUE(fault().says("manifest.json:")) << fault().message;
  }
}

}  // namespace
}  // namespace mhmoe::train
