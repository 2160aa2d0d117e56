// How a job's ranks are divided: expert-parallel groups of consecutive ranks, so that they lie within a node as long as
// they fit; and across these groups the ranks that hold the same experts.
#pragma once

#include <memory>
#include <vector>

#include "comm/hierarchy.h"
#include "device/backend.h"
#include "device/job.h"

namespace mhmoe::comm {

// World = replicas x expert-parallel groups. Tensor parallelism would divide a group further; there is none yet.
struct Layout {
  int world = 1;
  int expert_parallel_size = 1;  // divides world and the number of experts
  int rank = 0;

  int expert_rank() const { return rank % expert_parallel_size; }  // in the expert-parallel group
  int replica() const { return rank / expert_parallel_size; }      // which group
  int replicas() const { return world / expert_parallel_size; }
};

// asked: parallel.expert_parallel_size, 0 for null: the greatest common divisor of world and experts. Throws
// Error(kConfig) that lists what would divide. experts 0: no MoE layers, 1.
Layout make_layout(int world, int rank, int64_t experts, int64_t asked);

// What decides how the ranks of an expert-parallel group exchange rows.
struct GroupOptions {
  std::vector<int> nodes = {};  // of every rank of the job; empty: all on one
  Hierarchical hierarchical = Hierarchical::kOff;
  int64_t message_bytes = 0;  // for use_hierarchy()
};

// Every rank of the job calls it at the same place in order.
std::vector<int> nodes_of_ranks(Job& job);

// The communicators of one context. Every rank of the job makes them at the same place in order.
struct ParallelGroups {
  Job* job;
  Layout layout;
  std::unique_ptr<Communicator> world;    // all ranks
  std::unique_ptr<Communicator> expert;   // layout.expert_parallel_size consecutive ranks
  std::unique_ptr<Communicator> replica;  // the ranks that hold the same experts
  bool hierarchical = false;              // expert's all-to-alls go inside the node, then between nodes
};

ParallelGroups make_groups(const Backend& backend, Context& ctx, Job& job, const Layout& layout,
                           const GroupOptions& options = {});
// Of a process alone; and of any rank of any layout for a sizing context, where communicators check shapes and no more.
ParallelGroups make_single_groups(Context& ctx);
ParallelGroups make_sizing_groups(Context& ctx, const Layout& layout, const GroupOptions& options = {});

}  // namespace mhmoe::comm
