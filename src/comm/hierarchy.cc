#include "comm/hierarchy.h"

#include <algorithm>

#include "core/error.h"

namespace mhmoe::comm {

std::optional<NodeGrid> node_grid(int group_size, std::span<const int> nodes) {
  if (nodes.empty()) return NodeGrid{.nodes = 1, .ranks_per_node = group_size};
  int here = 1;  // of the first group, on the first node
  while (here < group_size && nodes[static_cast<size_t>(here)] == nodes[0]) ++here;
  if (group_size % here != 0) return std::nullopt;
  for (size_t rank = 1; rank < nodes.size(); ++rank) {
    const size_t member = rank % static_cast<size_t>(group_size);
    if (member == 0) continue;
    const bool same_node = member % static_cast<size_t>(here) != 0;
    const int step = nodes[rank] - nodes[rank - 1];
    if (step < 0 || (step == 0) != same_node) return std::nullopt;
  }
  return NodeGrid{.nodes = group_size / here, .ranks_per_node = here};
}

std::vector<int> divide_into_nodes(std::span<const int> machines, int ranks_per_node) {
  const auto ranks = static_cast<int>(machines.size());
  if (ranks % ranks_per_node != 0) {
    fail(ExitCode::kConfig, "parallel.ranks_per_node: {} does not divide the number of ranks, {}", ranks_per_node,
         ranks);
  }
  std::vector<int> nodes;
  for (int rank = 0; rank < ranks; ++rank) {
    const int node = rank / ranks_per_node, first = node * ranks_per_node;
    if (machines[static_cast<size_t>(rank)] != machines[static_cast<size_t>(first)]) {
      fail(ExitCode::kConfig,
           "parallel.ranks_per_node: with {}, ranks {} and {} would be of one node, but they are on different "
           "machines; set null, or a number of consecutive ranks that every machine has",
           ranks_per_node, first, rank);
    }
    nodes.push_back(node);
  }
  return nodes;
}

bool use_hierarchy(Hierarchical asked, const NodeGrid& grid, int64_t message_bytes) {
  if (!grid.two_levels() || asked == Hierarchical::kOff) return false;
  return asked == Hierarchical::kOn || message_bytes < kSmallMessageBytes;
}

AllToAllVolume flat_volume(const NodeGrid& grid, int64_t message_bytes) {
  const int64_t near = grid.ranks_per_node - 1, far = int64_t{grid.nodes - 1} * grid.ranks_per_node;
  return {.node_messages = near,
          .node_bytes = near * message_bytes,
          .network_messages = far,
          .network_bytes = far * message_bytes};
}

AllToAllVolume hierarchical_volume(const NodeGrid& grid, int64_t message_bytes) {
  const int64_t near = grid.ranks_per_node - 1, far = grid.nodes - 1;
  return {.node_messages = near,
          .node_bytes = near * grid.nodes * message_bytes,
          .network_messages = far,
          .network_bytes = far * grid.ranks_per_node * message_bytes};
}

}  // namespace mhmoe::comm
