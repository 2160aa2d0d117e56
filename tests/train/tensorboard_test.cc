#include "train/tensorboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <vector>

namespace mhmoe::train {
namespace {

namespace fs = std::filesystem;

// A reader of its own: CRCs bit by bit, protocol buffers field by field.
uint32_t crc_bit_by_bit(const std::string& data) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78 : crc >> 1;
  }
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
}

template <class T>
T take(const std::string& data, size_t& at) {
  T value;
  std::memcpy(&value, data.data() + at, sizeof value);
  at += sizeof value;
  return value;
}

// The payloads of all records; checks framing and CRCs.
std::vector<std::string> read_records(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  std::vector<std::string> records;
  for (size_t at = 0; at < all.size();) {
    EXPECT_LE(at + 12, all.size());
    const std::string length_bytes = all.substr(at, 8);
    const auto length = take<uint64_t>(all, at);
    EXPECT_EQ(take<uint32_t>(all, at), crc_bit_by_bit(length_bytes));
    EXPECT_LE(at + length + 4, all.size());
    records.push_back(all.substr(at, length));
    at += length;
    EXPECT_EQ(take<uint32_t>(all, at), crc_bit_by_bit(records.back()));
  }
  return records;
}

uint64_t take_varint(const std::string& data, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(data[at++]);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

struct Field {
  uint64_t integer = 0;
  double real = 0;
  std::string bytes;
};

std::multimap<int, Field> fields_of(const std::string& message) {
  std::multimap<int, Field> fields;
  for (size_t at = 0; at < message.size();) {
    const uint64_t key = take_varint(message, at);
    Field field;
    switch (key & 7) {
      case 0:
        field.integer = take_varint(message, at);
        break;
      case 1:
        field.real = take<double>(message, at);
        break;
      case 5:
        field.real = take<float>(message, at);
        break;
      case 2: {
        const uint64_t length = take_varint(message, at);
        field.bytes = message.substr(at, length);
        at += length;
        break;
      }
      default:
        ADD_FAILURE() << "wire type " << (key & 7);
        return fields;
    }
    fields.emplace(static_cast<int>(key >> 3), field);
  }
  return fields;
}

const Field& only(const std::multimap<int, Field>& fields, int number) {
  EXPECT_EQ(fields.count(number), 1U) << "field " << number;
  static const Field kNone;
  const auto found = fields.find(number);
  return found == fields.end() ? kNone : found->second;
}

class TensorBoard : public testing::Test {
 protected:
  TensorBoard() { fs::remove_all(folder_); }
  const std::string folder_ = testing::TempDir() + "tensorboard_test";
  const std::string path_ = folder_ + "/tensorboard/events.out.tfevents.1.host";
};

TEST_F(TensorBoard, Crc32cOfKnownVectors) {
  const auto crc = [](const std::string& text) { return crc32c(std::as_bytes(std::span(text))); };
  EXPECT_EQ(crc(""), 0U);
  EXPECT_EQ(crc("123456789"), 0xE3069283U);
  EXPECT_EQ(crc(std::string(32, '\0')), 0x8A9136AAU);  // RFC 3720, B.4
  EXPECT_EQ(crc(std::string(32, '\xFF')), 0x62A8AB43U);
}

TEST_F(TensorBoard, ScalarsOfAStepAreOneEvent) {
  TensorBoardFile file(path_);
  const std::pair<std::string, double> values[] = {{"train/loss", 2.5}, {"validation/books/perplexity", 1e10 / 3}};
  file.scalars(123'456'789'012, 1700000000.25, values);
  const std::vector<std::string> records = read_records(path_);
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(only(fields_of(records[0]), 3).bytes, "brain.Event:2");
  const auto event = fields_of(records[1]);
  EXPECT_EQ(only(event, 1).real, 1700000000.25);
  EXPECT_EQ(only(event, 2).integer, 123'456'789'012U);
  std::map<std::string, double> found;
  const auto summary = fields_of(only(event, 5).bytes);
  for (const auto& [number, field] : summary) {
    EXPECT_EQ(number, 1);
    const auto value = fields_of(field.bytes);
    found[only(value, 1).bytes] = only(value, 2).real;
  }
  EXPECT_EQ(found, (std::map<std::string, double>{{"train/loss", 2.5},
                                                  {"validation/books/perplexity", static_cast<float>(1e10 / 3)}}));
}

TEST_F(TensorBoard, TextAndBarsAreTensorsOfTheirPlugins) {
  TensorBoardFile file(path_);
  file.text(0, 1, "config", std::string(300, 'x'));
  const int64_t counts[] = {7, 0, 2};
  file.bars(5, 2, "moe/load/layer_1", counts);
  const std::vector<std::string> records = read_records(path_);
  ASSERT_EQ(records.size(), 3U);
  const auto value_of = [](const std::string& record) {
    return fields_of(only(fields_of(only(fields_of(record), 5).bytes), 1).bytes);
  };
  const auto plugin_of = [](const std::multimap<int, Field>& value) {
    return only(fields_of(only(fields_of(only(value, 9).bytes), 1).bytes), 1).bytes;
  };
  const auto text = value_of(records[1]);
  EXPECT_EQ(only(text, 1).bytes, "config");
  EXPECT_EQ(plugin_of(text), "text");
  EXPECT_EQ(only(fields_of(only(text, 8).bytes), 8).bytes, std::string(300, 'x'));
  const auto bars = value_of(records[2]);
  EXPECT_EQ(plugin_of(bars), "histograms");
  const std::string content = only(fields_of(only(bars, 8).bytes), 4).bytes;
  std::vector<double> numbers(content.size() / sizeof(double));
  std::memcpy(numbers.data(), content.data(), content.size());
  EXPECT_EQ(numbers, (std::vector<double>{0, 1, 7, 1, 2, 0, 2, 3, 2}));
}

// A resumed run goes back to its checkpoint's size and writes the same steps again: each is there once.
TEST_F(TensorBoard, ContinuesAFileFromItsSize) {
  const auto loss = [](TensorBoardFile& file, int64_t step) {
    const std::pair<std::string, double> values[] = {{"train/loss", static_cast<double>(step)}};
    file.scalars(step, 1, values);
  };
  int64_t begun = 0, kept = 0;
  {
    TensorBoardFile file(path_);
    begun = file.size();
    loss(file, 1);
    kept = file.size();
    loss(file, 2);
  }
  EXPECT_EQ(static_cast<int64_t>(fs::file_size(path_)), kept + (kept - begun));
  fs::resize_file(path_, fs::file_size(path_) - 3);  // killed while writing
  TensorBoardFile file(path_);
  file.truncate(kept);
  loss(file, 2);
  loss(file, 3);
  std::vector<uint64_t> steps;
  for (const std::string& record : read_records(path_)) {
    const auto event = fields_of(record);
    if (event.contains(5)) steps.push_back(only(event, 2).integer);
  }
  EXPECT_EQ(steps, (std::vector<uint64_t>{1, 2, 3}));
  file.truncate(0);
  const std::vector<std::string> fresh = read_records(path_);
  ASSERT_EQ(fresh.size(), 1U);
  EXPECT_EQ(only(fields_of(fresh[0]), 3).bytes, "brain.Event:2");
}

TEST_F(TensorBoard, ARunFolderHasOneFile) {
  const std::string path = tensorboard_path(folder_);
  EXPECT_EQ(fs::path(path).parent_path(), fs::path(folder_) / "tensorboard");
  EXPECT_TRUE(fs::path(path).filename().string().starts_with("events.out.tfevents.1"));
  { const TensorBoardFile file(path_); }
  std::ofstream(folder_ + "/tensorboard/other").put('x');
  EXPECT_EQ(tensorboard_path(folder_), path_);
}

}  // namespace
}  // namespace mhmoe::train
