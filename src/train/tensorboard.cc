#include "train/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>

namespace mhmoe::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFilePrefix = "events.out.tfevents.";

// Fields of a protocol buffer, in the order of the calls.
class Message {
 public:
  Message& integer(int field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& real(int field, double value) {
    key(field, 1);
    return fixed(value);
  }
  Message& real32(int field, float value) {
    key(field, 5);
    return fixed(value);
  }
  // A string, bytes, or a message within this one.
  Message& bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    out_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return bytes(field, value.out_); }

  const std::string& data() const { return out_; }

 private:
  void key(int field, int wire_type) { varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type)); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }
  template <class T>
  Message& fixed(T value) {
    static_assert(std::endian::native == std::endian::little);
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }

  std::string out_;
};

// Field numbers of event.proto, summary.proto, tensor.proto and tensor_shape.proto.
namespace event {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5;
}
namespace summary {
constexpr int kValue = 1, kTag = 1, kSimpleValue = 2, kTensor = 8, kMetadata = 9;
constexpr int kPluginData = 1, kPluginName = 1, kDataClass = 4, kDataClassTensor = 2;
}  // namespace summary
namespace tensor {
constexpr int kType = 1, kShape = 2, kContent = 4, kString = 8, kDim = 2, kDimSize = 1;
constexpr int kTypeDouble = 2, kTypeString = 7;
}  // namespace tensor

// A value of a plugin of TensorBoard: a tensor and who draws it.
Message plugin_summary(std::string_view name, std::string_view plugin, const Message& content) {
  const Message plugin_data = Message().bytes(summary::kPluginName, plugin);
  const Message metadata =
      Message().message(summary::kPluginData, plugin_data).integer(summary::kDataClass, summary::kDataClassTensor);
  return Message().message(
      summary::kValue,
      Message().bytes(summary::kTag, name).message(summary::kTensor, content).message(summary::kMetadata, metadata));
}

Message shape_of(std::initializer_list<int64_t> dims) {
  Message shape;
  for (const int64_t dim : dims) shape.message(tensor::kDim, Message().integer(tensor::kDimSize, dim));
  return shape;
}

consteval std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78U : 0U);
    table[byte] = crc;
  }
  return table;
}

// CRCs of data that holds CRCs are weak; TFRecord therefore stores them rotated and shifted.
uint32_t masked_crc(std::string_view data) {
  return std::rotr(crc32c(std::as_bytes(std::span(data))), 15) + 0xA282EAD8U;
}

template <class T>
std::string_view bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  uint32_t crc = ~0U;
  for (const std::byte byte : bytes) crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint32_t>(byte)) & 0xFF];
  return ~crc;
}

TensorBoardFile::TensorBoardFile(const std::string& path) : file_(path) {
  if (file_.size() == 0) begin();
}

void TensorBoardFile::begin() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  write_record(Message()
                   .real(event::kWallTime, std::chrono::duration<double>(now).count())
                   .bytes(event::kFileVersion, "brain.Event:2")
                   .data());
}

void TensorBoardFile::scalars(int64_t step, double wall_time, std::span<const std::pair<std::string, double>> values) {
  Message all;
  for (const auto& [name, value] : values) {
    all.message(summary::kValue,
                Message().bytes(summary::kTag, name).real32(summary::kSimpleValue, static_cast<float>(value)));
  }
  write_summary(step, wall_time, all.data());
}

void TensorBoardFile::text(int64_t step, double wall_time, std::string_view name, std::string_view markdown) {
  const Message content = Message()
                              .integer(tensor::kType, tensor::kTypeString)
                              .message(tensor::kShape, shape_of({1}))
                              .bytes(tensor::kString, markdown);
  write_summary(step, wall_time, plugin_summary(name, "text", content).data());
}

void TensorBoardFile::bars(int64_t step, double wall_time, std::string_view name, std::span<const int64_t> counts) {
  std::string rows;  // left edge, right edge, count
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto left = static_cast<double>(i);
    for (const double value : {left, left + 1, static_cast<double>(counts[i])}) rows += bytes_of(value);
  }
  const Message content = Message()
                              .integer(tensor::kType, tensor::kTypeDouble)
                              .message(tensor::kShape, shape_of({static_cast<int64_t>(counts.size()), 3}))
                              .bytes(tensor::kContent, rows);
  write_summary(step, wall_time, plugin_summary(name, "histograms", content).data());
}

void TensorBoardFile::truncate(int64_t bytes) {
  file_.truncate(bytes);
  if (bytes == 0) begin();
}

void TensorBoardFile::write_summary(int64_t step, double wall_time, std::string_view summary) {
  write_record(
      Message().real(event::kWallTime, wall_time).integer(event::kStep, step).bytes(event::kSummary, summary).data());
}

// Length, its CRC, the data, its CRC; in one write, so that a reader or a crash sees few halves.
void TensorBoardFile::write_record(std::string_view event) {
  const uint64_t length = event.size();
  const uint32_t length_crc = masked_crc(bytes_of(length)), data_crc = masked_crc(event);
  std::string record(bytes_of(length));
  record += bytes_of(length_crc);
  record += event;
  record += bytes_of(data_crc);
  file_.write(record.data(), record.size());
}

std::string tensorboard_path(const std::string& run_folder) {
  const fs::path folder = fs::path(run_folder) / "tensorboard";
  std::string found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kFilePrefix) && (found.empty() || name < found)) found = name;
  }
  if (!found.empty()) return (folder / found).string();
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const int64_t seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  return (folder / fmt::format("{}{}.{}", kFilePrefix, seconds, host.data())).string();
}

}  // namespace mhmoe::train
