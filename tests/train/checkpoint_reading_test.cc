// Checkpoints whose bytes are right: with headers of other tools, and from a disk that gives others at first.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "checkpoint_fixture.h"
#include "core/hash.h"

namespace {

// What the system's pread does in this program: it takes the place of the C library's.
struct Disk {
  int bad_reads = 0;  // from now on, of those that begin at `offset`: the first bit is flipped
  off_t offset = 0;
};
Disk disk;

}  // namespace

extern "C" ssize_t pread(int descriptor, void* data, size_t bytes, off_t offset) {
  const ssize_t count = syscall(SYS_pread64, descriptor, data, bytes, offset);
  if (count > 0 && disk.bad_reads > 0 && offset == disk.offset) {
    --disk.bad_reads;
    *static_cast<unsigned char*>(data) ^= 1;
  }
  return count;
}

namespace mhmoe::train {
namespace {

class CheckpointReading : public CheckpointTest {
 protected:
  static constexpr const char* kModel = "model-00001-of-00001.safetensors";
};

// Ours are padded to 8 bytes. Every value here would be none if it were read from the wrong byte on.
TEST_F(CheckpointReading, HeadersMayHaveAnyLength) {
  Snapshot snapshot = make_snapshot(7);
  for (auto& values : snapshot.storage) std::ranges::fill(values, std::bit_cast<float>(0x80ff'ffff));
  write_checkpoint(folder_, snapshot);
  const std::string model = path(7) + "/" + kModel, manifest_path = path(7) + "/manifest.json";
  for (int padding = 1; padding <= 4; ++padding) {
    std::string bytes = read_bytes(model);
    ++bytes[0];  // of the header's length
    bytes.insert(SafetensorsReader(model).header().size(), 1, ' ');
    write_bytes(model, bytes);
    Manifest manifest = parse_manifest(manifest_path, read_bytes(manifest_path));
    manifest.files.at(kModel) = {.bytes = static_cast<int64_t>(bytes.size()), .xxh3 = xxh3(bytes)};
    write_bytes(manifest_path, format_manifest(manifest));
    const Thrown thrown = thrown_by([&] { Checkpoint(path(7)).verify(); });
    EXPECT_EQ(thrown.code, ExitCode::kOk) << thrown.message;
  }
}

TEST_F(CheckpointReading, OneThatReadsRightOnlyTheSecondTimeIsNotCalledDamaged) {
  write_checkpoint(folder_, make_snapshot(7));
  const Checkpoint checkpoint(path(7));
  disk.offset = static_cast<off_t>(SafetensorsReader(path(7) + "/" + kModel).header().size());
  const auto fault = [&](int bad_reads) {
    disk.bad_reads = bad_reads;
    Thrown thrown = thrown_by([&] { checkpoint.verify(); });
    disk.bad_reads = 0;
    return thrown;
  };
  const Thrown once = fault(1), twice = fault(2);
  EXPECT_EQ(once.code, ExitCode::kIo);
  EXPECT_TRUE(once.says("gave other bytes when it was read again") && once.says(kModel)) << once.message;
  EXPECT_EQ(twice.code, ExitCode::kBadData);
  EXPECT_TRUE(twice.says("tensor 'embed.weight' is damaged")) << twice.message;
  EXPECT_EQ(fault(0).code, ExitCode::kOk);
}

}  // namespace
}  // namespace mhmoe::train
