// Which part of a training step a piece of work belongs to: said by those who hand the work over, read by observers.
#pragma once

#include <array>
#include <string_view>

#include "device/context.h"

namespace mhmoe {

// Gradients count where the values do. Rows on their way to the experts are dispatch, rows on their way back combine.
enum class StepPart : uint8_t {
  kOther,
  kEmbedding,
  kAttention,    // with its projections
  kNorms,        // with casts of the residual stream
  kFeedForward,  // of dense blocks, and shared experts
  kHeadAndMerge,
  kRouter,
  kDispatch,
  kExperts,
  kCombine,
  kLoss,       // output layer and cross-entropy
  kOptimizer,  // with clearing the gradients
};
inline constexpr std::array kStepParts = {
    StepPart::kEmbedding,    StepPart::kAttention, StepPart::kNorms,     StepPart::kFeedForward,
    StepPart::kHeadAndMerge, StepPart::kRouter,    StepPart::kDispatch,  StepPart::kExperts,
    StepPart::kCombine,      StepPart::kLoss,      StepPart::kOptimizer, StepPart::kOther,
};

// As JSON keys and tables have it: "head_and_merge".
MHMOE_API std::string_view to_string(StepPart part);

// Until its end, what the context is given belongs to the part; an inner scope takes precedence.
class StepPartScope {
 public:
  StepPartScope(Context& ctx, StepPart part) : ctx_(ctx), outer_(ctx.set_part(part)) {}
  ~StepPartScope() { ctx_.set_part(outer_); }
  StepPartScope(const StepPartScope&) = delete;
  StepPartScope& operator=(const StepPartScope&) = delete;

 private:
  Context& ctx_;
  StepPart outer_;
};

}  // namespace mhmoe
