// Which groups can send in two steps, and what that sends.
#include <gtest/gtest.h>

#include "comm/hierarchy.h"
#include "core/error.h"

namespace mhmoe::comm {
namespace {

TEST(NodeGrid, IsOfGroupsThatAllLieAlike) {
  const std::vector<int> pairs{0, 0, 1, 1, 2, 2, 3, 3};
  EXPECT_EQ(node_grid(8, pairs), (NodeGrid{4, 2}));
  EXPECT_EQ(node_grid(4, pairs), (NodeGrid{2, 2}));
  EXPECT_EQ(node_grid(2, pairs), (NodeGrid{1, 2}));
  EXPECT_EQ(node_grid(1, pairs), (NodeGrid{1, 1}));
  EXPECT_EQ(node_grid(8, {}), (NodeGrid{1, 8}));
  EXPECT_EQ(node_grid(4, std::vector{0, 1, 2, 3}), (NodeGrid{4, 1}));
}

TEST(NodeGrid, IsNoneForOthers) {
  EXPECT_FALSE(node_grid(6, std::vector{0, 0, 0, 0, 1, 1}));        // not equally many
  EXPECT_FALSE(node_grid(3, std::vector{0, 0, 0, 0, 1, 1}));        // one group does, another does not
  EXPECT_FALSE(node_grid(4, std::vector{0, 0, 1, 1, 2, 2, 2, 2}));  // both do, not alike
  EXPECT_FALSE(node_grid(4, std::vector{0, 0, 1, 1, 2, 3, 4, 5}));
  EXPECT_FALSE(node_grid(4, std::vector{0, 1, 0, 1}));  // dealt out
  EXPECT_FALSE(node_grid(8, std::vector{0, 0, 1, 1, 0, 0, 1, 1}));
}

std::string refusal(const std::vector<int>& machines, int ranks_per_node) {
  try {
    divide_into_nodes(machines, ranks_per_node);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    return error.what();
  }
  return "";
}

TEST(Nodes, LieOnOneMachineEach) {
  EXPECT_EQ(divide_into_nodes(std::vector{0, 0, 0, 0}, 2), (std::vector{0, 0, 1, 1}));
  EXPECT_EQ(divide_into_nodes(std::vector{0, 0, 1, 1}, 2), (std::vector{0, 0, 1, 1}));
  EXPECT_NE(refusal({0, 0, 0, 0}, 8).find("8 does not divide the number of ranks, 4"), std::string::npos);
  const std::string larger = refusal({0, 0, 1, 1}, 4);
  EXPECT_NE(larger.find("with 4, ranks 0 and 2 would be of one node"), std::string::npos) << larger;
  EXPECT_NE(refusal({0, 1, 0, 1}, 2), "") << "dealt out";
}

TEST(Hierarchy, AutoIsForSmallMessagesOfTwoLevels) {
  const NodeGrid grid{4, 8};
  EXPECT_TRUE(use_hierarchy(Hierarchical::kAuto, grid, kSmallMessageBytes - 1));
  EXPECT_FALSE(use_hierarchy(Hierarchical::kAuto, grid, kSmallMessageBytes));
  EXPECT_TRUE(use_hierarchy(Hierarchical::kOn, grid, kSmallMessageBytes));
  EXPECT_FALSE(use_hierarchy(Hierarchical::kOff, grid, 1));
  for (const NodeGrid one_level : {NodeGrid{1, 8}, NodeGrid{8, 1}, NodeGrid{1, 1}}) {
    EXPECT_FALSE(use_hierarchy(Hierarchical::kOn, one_level, 1));
  }
}

TEST(Hierarchy, SendsTheSameBytesOverTheNetworkInFewerMessages) {
  for (const NodeGrid grid : {NodeGrid{2, 2}, NodeGrid{4, 8}, NodeGrid{3, 5}}) {
    const AllToAllVolume flat = flat_volume(grid, 1000), steps = hierarchical_volume(grid, 1000);
    EXPECT_EQ(flat.node_bytes + flat.network_bytes, 1000 * (grid.nodes * grid.ranks_per_node - 1));
    EXPECT_EQ(steps.network_bytes, flat.network_bytes);
    EXPECT_EQ(steps.network_messages * grid.ranks_per_node, flat.network_messages);
    EXPECT_EQ(steps.node_messages, flat.node_messages);
    EXPECT_EQ(steps.node_bytes, flat.node_bytes * grid.nodes);
  }
}

}  // namespace
}  // namespace mhmoe::comm
