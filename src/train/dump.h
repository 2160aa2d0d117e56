// Every named tensor of a step, for finding the first that differs between two runs (scripts/compare_dumps.py).
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "device/context.h"

namespace mhmoe::train {

// Records tensors in the order of their computation. A name that comes again (micro-batches, recomputation) gets the
// suffix "@1", "@2", ... write() leaves two files in the folder: step-N.safetensors, and step-N.jsonl with one line a
// tensor: name, dtype, shape, min, max, mean, nan (how many), xxh3 (of the bytes).
class DumpObserver final : public TensorObserver {
 public:
  // `ctx` must outlive the observer.
  explicit DumpObserver(Context& ctx) : ctx_(ctx) {}

  void record(const std::string& name, const Tensor& tensor) override;
  void write(const std::string& folder, int64_t step) const;

 private:
  Context& ctx_;
  std::map<std::string, int> seen_;
  std::deque<std::vector<std::byte>> bytes_;
  std::vector<NamedTensor> tensors_;
};

}  // namespace mhmoe::train
