// When all-to-alls go in two steps, inside the node and then between nodes, and what either way sends.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace mhmoe::comm {

enum class Hierarchical : uint8_t { kAuto, kOn, kOff };

// How a group lies: on so many nodes, with so many of its ranks on each; member i is number i % ranks_per_node of node
// i / ranks_per_node.
struct NodeGrid {
  int nodes = 1, ranks_per_node = 1;

  bool two_levels() const { return nodes > 1 && ranks_per_node > 1; }
  bool operator==(const NodeGrid&) const = default;
};

// Of every group of group_size consecutive ranks; none where they do not all lie alike, or a group's ranks are not in
// order of their nodes and equally many on each. nodes: of every rank of the job; empty: all on one.
std::optional<NodeGrid> node_grid(int group_size, std::span<const int> nodes);

// The node of every rank where so many consecutive ranks are one. machines: of every rank; a node lies on one. Throws
// Error(kConfig).
std::vector<int> divide_into_nodes(std::span<const int> machines, int ranks_per_node);

// Below this many bytes a message takes a network's latency rather than its bandwidth: about 5 us times 50 GB/s, a
// 400 Gb/s link from device to device. A machine that differs by a factor of two has one of the settings on and off.
inline constexpr int64_t kSmallMessageBytes = 256 << 10;

// message_bytes: what one rank sends to each of the others at once, if it sends directly. auto: where direct messages
// are small, because the two steps send the same bytes over the network in ranks_per_node times fewer messages; large
// messages gain nothing and would only go through the node's memory twice.
bool use_hierarchy(Hierarchical asked, const NodeGrid& grid, int64_t message_bytes);

// What one rank sends in one all-to-all of message_bytes for each rank.
struct AllToAllVolume {
  int64_t node_messages, node_bytes;        // to ranks of its own node
  int64_t network_messages, network_bytes;  // to ranks of other nodes

  bool operator==(const AllToAllVolume&) const = default;
};
AllToAllVolume flat_volume(const NodeGrid& grid, int64_t message_bytes);
AllToAllVolume hierarchical_volume(const NodeGrid& grid, int64_t message_bytes);

}  // namespace mhmoe::comm
