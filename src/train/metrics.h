// The numbers of a run: averaged between log lines, written to metrics.jsonl and perplexity.csv.
#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/evaluation.h"
#include "train/trainer.h"

namespace mhmoe::train {

// What a logged step says. Loss, balance and routing are means over the steps since the last log line (refused steps
// left out); norm and learning rate are the step's own.
struct TrainRecord {
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  MoeSummary moe;
  std::optional<double> tokens_per_second;  // absent at the first step, which is left out of averages
  std::optional<double> mfu;                // model FLOPs a second over the measured peak; absent above 1

  double perplexity() const;
};

struct Record {
  int64_t step = 0;
  int64_t tokens = 0;  // trained on so far
  double flops = 0;    // model FLOPs so far
  double seconds = 0;  // of training so far, validation left out
  std::optional<TrainRecord> train;
  std::vector<ValidationScore> validation;
};

// Collects steps between two log lines.
class StepWindow {
 public:
  StepWindow(double flops_per_token, std::optional<double> peak_flops_per_second)
      : flops_per_token_(flops_per_token), peak_(peak_flops_per_second) {}

  void add(const StepResult& result, int64_t tokens, double seconds);
  // The record of the steps added since the last call; at least one.
  TrainRecord take();

 private:
  double flops_per_token_;
  std::optional<double> peak_;
  StepResult last_;
  int64_t averaged_ = 0;
  double loss_ = 0;
  MoeSummary moe_;
  int64_t timed_tokens_ = 0;
  double timed_seconds_ = 0;
};

// metrics.jsonl: one object a logged or validated step. perplexity.csv: one row for the same steps; cells of what was
// not measured at a step are empty. Both are flushed at every record.
class MetricsFiles {
 public:
  MetricsFiles(const std::string& folder, const std::vector<std::string>& validation_names, bool has_moe);

  void append(const Record& record);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  struct TextFile {
    std::string path;
    std::unique_ptr<std::FILE, Close> file;
  };

  static TextFile open(const std::string& path);
  static void write_line(TextFile& file, const std::string& line);
  std::string json_line(const Record& record) const;
  std::string csv_line(const Record& record) const;

  TextFile metrics_, perplexity_;
  size_t validation_sets_;
  bool has_moe_;
};

}  // namespace mhmoe::train
