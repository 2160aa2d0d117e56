#include "comm/hierarchy.h"

#include <algorithm>

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
