// All-to-alls in two steps, for groups with several ranks on each of several nodes: first every rank gives each rank of
// its node what is for the ranks of that place on all nodes, then ranks of equal places send it on between nodes. Over
// the network go the same bytes as without, in as many times fewer messages as a node has ranks of the group; in the
// node nearly everything travels once more (hierarchy.h has both volumes, and when `auto` takes it).
//
// An all-to-all has ended when its call returns, as far as the compute stream is concerned: the scratch for rows on
// their way is the step arena's, which is given back in reverse order, so it cannot outlive the call. So transfers
// started here overlap with nothing: parallel.overlap_chunks has no use, and large messages are better sent directly.
#pragma once

#include <memory>

#include "device/communicator.h"
#include "device/context.h"

namespace mhmoe::comm {

// Of one rank. node: the ranks of `flat` on its node; between: those of its place on each node. In flat's order, ranks
// of a node are consecutive.
struct Levels {
  std::unique_ptr<Communicator> flat, node, between;
};

// All collectives but all-to-alls are flat's. So are all_to_all_rows of rows that are not declared equal, if they are
// not in host memory: to send its peers' rows on, a rank must know how many there are, for which the host would have to
// wait for the device once more. ctx must outlive it.
std::unique_ptr<Communicator> make_hierarchical_communicator(Context& ctx, Levels levels);

}  // namespace mhmoe::comm
