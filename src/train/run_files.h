// The records of a run that grow with it: metrics.jsonl, perplexity.csv, routing.jsonl and TensorBoard's events.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/append_file.h"
#include "train/metrics.h"
#include "train/routing_record.h"
#include "train/tensorboard.h"

namespace mhmoe::train {

class RunFiles {
 public:
  // Which files there are: validation sets have columns of their own, routing is recorded in MoE models.
  struct Layout {
    std::vector<std::string> validation_sets;
    bool has_moe = false;
    bool routing = false;
  };
  // Opens the files in the folder and cuts each to the size it had at the checkpoint that the run goes on from, so that
  // steps after it are not recorded twice; `bytes` is empty at the beginning of a run.
  RunFiles(const std::string& folder, Layout layout, const std::map<std::string, int64_t>& bytes);

  // One object in metrics.jsonl, one row of perplexity.csv (cells of what was not measured are empty), one event.
  void append(const Record& record);
  void append_refusal(const StepResult& result, const std::string& first_bad_tensor, int64_t in_a_row);
  void append_routing(int64_t step, const RoutingRecord& routing);
  // Text that TensorBoard shows beside the curves.
  void note(const std::string& name, const std::string& markdown);

  // By file name; what the constructor takes.
  std::map<std::string, int64_t> bytes() const;
  void sync();

 private:
  std::string csv_line(const Record& record) const;

  Layout layout_;
  AppendFile metrics_, perplexity_;
  std::optional<AppendFile> routing_;
  TensorBoardFile events_;
};

}  // namespace mhmoe::train
