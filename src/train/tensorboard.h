// Event files as TensorBoard reads them: https://www.tensorflow.org/tensorboard. No library of theirs is needed:
// records are framed with CRCs, and the few protocol buffers in them are written by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/append_file.h"

namespace mhmoe::train {

// Wall times are seconds since 1970. Every call appends whole events and throws as AppendFile.
class TensorBoardFile {
 public:
  // Creates the file, or continues it.
  explicit TensorBoardFile(const std::string& path);

  // One event that holds all values, each under its name; TensorBoard keeps them as float.
  void scalars(int64_t step, double wall_time, std::span<const std::pair<std::string, double>> values);
  // Markdown.
  void text(int64_t step, double wall_time, std::string_view name, std::string_view markdown);
  // A bar for each count, bar i over [i, i + 1]: expert loads, say.
  void bars(int64_t step, double wall_time, std::string_view name, std::span<const int64_t> counts);

  const std::string& path() const { return file_.path(); }
  int64_t size() const { return file_.size(); }
  // Back to what size() was: a resumed run writes the events after its checkpoint anew. 0: as just created.
  void truncate(int64_t bytes);
  void sync() { file_.sync(); }

 private:
  void begin();
  void write_summary(int64_t step, double wall_time, std::string_view summary);
  void write_record(std::string_view event);

  AppendFile file_;
};

// RUN/tensorboard/events.out.tfevents.SECONDS.HOST: the one that is there (of several the first by name), or else the
// name of a new one.
std::string tensorboard_path(const std::string& run_folder);

// CRC-32C (Castagnoli).
uint32_t crc32c(std::span<const std::byte> bytes);

}  // namespace mhmoe::train
