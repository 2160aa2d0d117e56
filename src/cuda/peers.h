// How the host waits for a device whose work may itself wait for another rank's.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/context.h"
#include "device/job.h"
#include "device/traffic_counter.h"

namespace mhmoe::cuda {

// A communicator of several ranks.
class Peer {
 public:
  virtual ~Peer() = default;
  // What ended the communication and which transfer did not end; empty while all is well.
  virtual std::string failure() = 0;
  // Begins to give the communicator up: its work on the device ends with whatever it has. From any thread.
  virtual void begin_abort() = 0;
  // Whether that is done.
  virtual bool abort_ended() = 0;
  // What calls that were recorded since the last call would send; to be added whenever they are played.
  virtual TrafficCounter take_recorded() = 0;
  virtual void add(const TrafficCounter& played) = 0;
};

// The communicators of a context that reach other ranks. As long as there are any, a wait for the device is a loop that
// asks them too, so that it ends with Error(kPeerLost) when a rank is lost, and one that the job's monitor knows of.
class Peers {
 public:
  Peers() = default;
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  // All of one job.
  void add(Peer& peer, Monitor& monitor);
  void remove(Peer& peer);

  // What `record` makes, with its traffic counted at every replay.
  std::unique_ptr<RecordedWork> count(const std::function<std::unique_ptr<RecordedWork>()>& record);

  // As cudaStreamSynchronize and cudaEventSynchronize.
  void wait(cudaStream_t stream);
  void wait(cudaEvent_t event);
  // Throws Error(kPeerLost) if a communicator has failed, after all were given up.
  void check();
  // Gives all communicators up, and waits a second at most: NCCL's abort itself may wait, for graphs that hold its
  // calls.
  void give_up();

 private:
  template <class Query>
  void poll(const char* call, Query&& query);

  std::mutex mutex_;  // of peers_, which the watchdog's thread reads
  std::vector<Peer*> peers_;
  Monitor* monitor_ = nullptr;
};

}  // namespace mhmoe::cuda
