// What `mhmoe plan --ranks` prints.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"
#include "plan/cluster_time.h"

namespace mhmoe::plan {

// A run on a cluster, all of it computed.
struct ClusterPlan {
  const train::RunConfig& config;
  Cluster cluster;
  DType compute = DType::kF32;
  comm::Layout layout;
  Route route;
  RankMemory memory;
  ClusterTimes times;

  double mfu(double step_seconds) const;
};

// `config` (with model.vocab_size filled in) must outlive the plan. Throws Error(kUsage) or Error(kConfig) for ranks
// that do not divide nodes, experts or micro-batches.
ClusterPlan plan_cluster(const train::RunConfig& config, const Cluster& cluster, DType compute);

std::string cluster_text(const ClusterPlan& plan);
json::Value cluster_json(const ClusterPlan& plan);
// One line each, without a full stop.
std::vector<std::string> cluster_warnings(const ClusterPlan& plan);

}  // namespace mhmoe::plan
