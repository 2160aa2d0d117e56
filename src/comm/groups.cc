#include "comm/groups.h"

#include <numeric>
#include <string>
#include <vector>

#include "comm/hierarchical_communicator.h"
#include "device/self_communicator.h"
#include "device/sizing_communicator.h"

namespace mhmoe::comm {
namespace {

std::string common_divisors(int64_t world, int64_t experts) {
  const int64_t greatest = std::gcd(world, experts);
  std::string list;
  for (int64_t d = 1; d <= greatest; ++d) {
    if (greatest % d == 0) list += (list.empty() ? "" : ", ") + std::to_string(d);
  }
  return list;
}

// The members of the three groups that a rank belongs to.
struct Ranks {
  explicit Ranks(const Layout& layout) {
    for (int rank = 0; rank < layout.world; ++rank) {
      const Layout other{layout.world, layout.expert_parallel_size, rank};
      world.push_back(rank);
      if (other.replica() == layout.replica()) expert.push_back(rank);
      if (other.expert_rank() == layout.expert_rank()) replica.push_back(rank);
    }
  }
  std::vector<int> world, expert, replica;
};

// The groups of a layout; create(ranks) makes one communicator.
template <class Create>
ParallelGroups make_all(Context& ctx, Job& job, const Layout& layout, const GroupOptions& options, Create&& create) {
  const Ranks ranks(layout);
  ParallelGroups groups{.job = &job,
                        .layout = layout,
                        .world = create(ranks.world),
                        .expert = create(ranks.expert),
                        .replica = create(ranks.replica)};
  // Of all ranks or of none, since all must create communicators at the same places.
  const std::optional<NodeGrid> grid = node_grid(layout.expert_parallel_size, options.nodes);
  groups.hierarchical = grid && use_hierarchy(options.hierarchical, *grid, options.message_bytes);
  if (!groups.hierarchical) return groups;
  std::vector<int> node, between;
  for (int i = 0; i < layout.expert_parallel_size; ++i) {
    const int rank = ranks.expert[static_cast<size_t>(i)], places = grid->ranks_per_node;
    if (i / places == layout.expert_rank() / places) node.push_back(rank);
    if (i % places == layout.expert_rank() % places) between.push_back(rank);
  }
  Levels levels{.flat = std::move(groups.expert), .node = create(node), .between = create(between)};
  groups.expert = make_hierarchical_communicator(ctx, std::move(levels));
  return groups;
}

// A rank alone needs no library.
std::unique_ptr<Communicator> make_one(const Backend& backend, Context& ctx, Job& job, const std::vector<int>& ranks) {
  if (job.size() == 1) return make_self_communicator(ctx, job.rank());
  if (backend.create_communicator != nullptr) return backend.create_communicator(ctx, job, ranks);
  return job.create_host_communicator(ranks);
}

}  // namespace

Layout make_layout(int world, int rank, int64_t experts, int64_t asked) {
  if (experts == 0) return {.world = world, .expert_parallel_size = 1, .rank = rank};
  if (asked == 0) asked = std::gcd(int64_t{world}, experts);
  if (world % asked != 0 || experts % asked != 0) {
    fail(
        ExitCode::kConfig,
        "parallel.expert_parallel_size: {} does not divide both the number of ranks, {}, and the number of experts, {} "
        "(model.moe.experts); possible are {}",
        asked, world, experts, common_divisors(world, experts));
  }
  return {.world = world, .expert_parallel_size = static_cast<int>(asked), .rank = rank};
}

std::vector<int> nodes_of_ranks(Job& job) {
  std::vector<int> nodes;
  for (const std::string& node : job.gather(std::to_string(job.node()))) nodes.push_back(std::stoi(node));
  return nodes;
}

ParallelGroups make_groups(const Backend& backend, Context& ctx, Job& job, const Layout& layout,
                           const GroupOptions& options) {
  return make_all(ctx, job, layout, options,
                  [&](const std::vector<int>& ranks) { return make_one(backend, ctx, job, ranks); });
}

ParallelGroups make_single_groups(Context& ctx) {
  return {.job = &single_job(),
          .layout = {},
          .world = make_self_communicator(ctx),
          .expert = make_self_communicator(ctx),
          .replica = make_self_communicator(ctx)};
}

ParallelGroups make_sizing_groups(Context& ctx, const Layout& layout, const GroupOptions& options) {
  if (layout.world == 1) return make_single_groups(ctx);
  return make_all(ctx, single_job(), layout, options,
                  [&](const std::vector<int>& ranks) { return make_sizing_communicator(layout.rank, ranks); });
}

}  // namespace mhmoe::comm
