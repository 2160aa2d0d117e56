// The processes of a job, and what they tell each other on the host: few and small messages, in the same order on all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "device/communicator.h"

namespace mhmoe {

// What the job's watchdog knows of this rank, for messages when ranks are lost. From any thread.
class MHMOE_API Monitor {
 public:
  virtual ~Monitor();
  // The training step that this rank is in, counted from 1; 0 before and after.
  virtual void set_step(int64_t step) = 0;
  // This rank enters a collective of the group: it must leave within parallel.timeout_seconds. Throws Error(kInternal)
  // naming both ranks if another rank of the group on this machine entered something else under the same number.
  // kind: what it is called ("all_to_all"); bytes: what all ranks must agree on, -1 where they need not.
  virtual void enter(std::span<const int> group, std::string_view kind, int64_t bytes, std::string_view purpose) = 0;
  virtual void leave() = 0;
  // The host waits for its device, for as long as that may take as for a collective. Ends with leave().
  virtual void enter_device_wait() = 0;
  // Called by the watchdog's thread before it ends the job, for a device's communicators to be given up. Null: none.
  virtual void on_timeout(void (*give_up)(void*), void* argument) = 0;
  // The job's own folder, on all its machines: what the ranks did last is left there when a wait takes too long. Before
  // that it is printed.
  virtual void set_folder(const std::string& folder) = 0;
};

class MHMOE_API Job {
 public:
  virtual ~Job();
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int local_rank() const = 0;      // among the ranks of its node, which are numbered in order of rank
  virtual int ranks_per_node() const = 0;  // of this node; parallel.ranks_per_node overrides what the launcher says
  virtual int node() const = 0;            // nodes are numbered in order of their lowest ranks
  virtual int nodes() const = 0;

  virtual void broadcast(void* data, size_t bytes, int root) = 0;
  // What every rank gave, in order of rank, on all ranks.
  virtual std::vector<std::string> gather(const std::string& mine) = 0;
  virtual void sum(std::span<int64_t> values) = 0;
  virtual void maximum(std::span<int64_t> values) = 0;
  // Point to point, in order; the receiver knows the length.
  virtual void send(const void* data, size_t bytes, int to) = 0;
  virtual void receive(void* data, size_t bytes, int from) = 0;

  // For tensors in host memory. ranks: ascending, with this one; the same call on all of them, and on no other rank at
  // the same place in order. Groups of the job's ranks that are disjoint may be made by the same call.
  virtual std::unique_ptr<Communicator> create_host_communicator(std::span<const int> ranks) = 0;

  virtual Monitor& monitor() = 0;
  // Ends all ranks, with this rank's code; its message has been printed. A job of one returns.
  virtual void abort(ExitCode code) = 0;
};

// The job of a process started alone: every call is the group-of-one meaning. Lives as long as the process.
MHMOE_API Job& single_job();

}  // namespace mhmoe
