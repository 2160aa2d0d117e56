#include "device/step_part.h"

namespace mhmoe {

std::string_view to_string(StepPart part) {
  switch (part) {
    case StepPart::kEmbedding:
      return "embedding";
    case StepPart::kAttention:
      return "attention";
    case StepPart::kNorms:
      return "norms";
    case StepPart::kFeedForward:
      return "feed_forward";
    case StepPart::kHeadAndMerge:
      return "head_and_merge";
    case StepPart::kRouter:
      return "router";
    case StepPart::kDispatch:
      return "dispatch";
    case StepPart::kExperts:
      return "experts";
    case StepPart::kCombine:
      return "combine";
    case StepPart::kLoss:
      return "loss";
    case StepPart::kOptimizer:
      return "optimizer";
    case StepPart::kOther:
      break;
  }
  return "other";
}

}  // namespace mhmoe
