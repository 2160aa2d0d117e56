// Finds where a NaN or an infinity came from.
#pragma once

#include <string>
#include <vector>

#include "device/context.h"

namespace mhmoe::train {

// Notes the first observed tensor that holds a value that is not finite.
class NonFiniteProbe final : public TensorObserver {
 public:
  explicit NonFiniteProbe(Context& ctx) : ctx_(ctx) {}

  void record(const std::string& name, const Tensor& tensor) override;
  const std::string& first() const { return first_; }  // empty: none

 private:
  Context& ctx_;
  std::string first_;
  std::vector<std::byte> bytes_;
};

}  // namespace mhmoe::train
