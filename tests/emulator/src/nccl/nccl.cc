// The part of NCCL that trainers use, over MPI. Calls are queued on their stream like kernels; the ranks of a call
// compare what they were asked for. MPI is the program's to initialise; a communicator of one rank does not need it.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "emulator/stream.h"
#include "nccl/join.h"
#include "nccl/queue.h"
#include "streams.h"

namespace emulator {
namespace {

struct Group {
  int depth = 0;
  cudaStream_t stream = nullptr;
  std::vector<Call> calls;
};

// What threads have open; not thread-local variables, which in a module are its kernels' shared memory.
Group& group() {
  static std::mutex mutex;
  static std::map<std::thread::id, Group> groups;
  const std::lock_guard lock(mutex);
  return groups[std::this_thread::get_id()];
}

// Calls of a process run in the order in which it makes them, whatever their streams and communicators: else two ranks
// whose streams run in different orders would wait for each other. NCCL does so too (NCCL_LAUNCH_ORDER_IMPLICIT).
class LaunchOrder {
 public:
  cudaError_t add_communicator() {
    if (++communicators_ > 1) return cudaSuccess;
    for (cudaEvent_t* event : {&last_, &last_captured_}) {
      if (const auto code = cudaEventCreateWithFlags(event, cudaEventDisableTiming); code != cudaSuccess) return code;
    }
    return cudaSuccess;
  }
  cudaError_t remove_communicator() {
    if (--communicators_ > 0) return cudaSuccess;
    const cudaError_t code = cudaEventDestroy(std::exchange(last_captured_, nullptr));
    return std::max(code, cudaEventDestroy(std::exchange(last_, nullptr)));
  }
  // A graph's calls wait for those that the same capture recorded before.
  cudaError_t wait(cudaStream_t stream) const {
    const auto capture = capture_of(stream);
    if (capture == nullptr) return cudaStreamWaitEvent(stream, last_, 0);
    return last_captured_->recording.capture == capture ? cudaStreamWaitEvent(stream, last_captured_, 0) : cudaSuccess;
  }
  cudaError_t record(cudaStream_t stream) const {
    return cudaEventRecord(capture_of(stream) == nullptr ? last_ : last_captured_, stream);
  }

 private:
  static std::shared_ptr<Capture> capture_of(cudaStream_t handle) {
    const cudaStream_t stream = resolve(handle);
    return stream == nullptr ? nullptr : stream->recording.capture;
  }

  std::atomic<int> communicators_ = 0;
  cudaEvent_t last_ = nullptr, last_captured_ = nullptr;
};
LaunchOrder launch_order;

ncclResult_t run(cudaStream_t stream, std::vector<Call> calls) {
  const std::shared_ptr<Clique> clique = calls.front().clique;
  std::vector<const void*> addresses;
  for (const Call& call : calls) {
    for (const Message& message : call.sends) addresses.push_back(message.data);
    for (const Message& message : call.receives) addresses.push_back(message.data);
  }
  cudaError_t code = launch_order.wait(stream);
  if (code == cudaSuccess) {
    const auto shared = std::make_shared<Exchange>(std::move(calls));
    code = enqueue(
        stream, "NCCL", [shared] { shared->advance(); }, addresses);
  }
  if (clique->aborted) return ncclSuccess;  // meanwhile, and perhaps all that there was to keep in order
  if (code == cudaSuccess) code = launch_order.record(stream);
  return code == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t make_communicator(ncclComm_t* comm, std::shared_ptr<Clique> clique) {
  *comm = nullptr;
  if (launch_order.add_communicator() != cudaSuccess) return ncclUnhandledCudaError;
  *comm = new ncclComm{std::move(clique)};
  return ncclSuccess;
}

}  // namespace

ncclResult_t submit(Call call, cudaStream_t stream) {
  Group& open = group();
  if (call.request.number >= 0) call.request.number = ++call.clique->calls;
  if (open.depth > 0) {
    // NCCL would join the streams; the emulator knows groups of one stream.
    if (!open.calls.empty() && open.stream != stream) return ncclInvalidUsage;
    open.stream = stream;
    open.calls.push_back(std::move(call));
    return ncclSuccess;
  }
  std::vector<Call> calls;
  calls.push_back(std::move(call));
  return run(stream, std::move(calls));
}

}  // namespace emulator

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  *id = emulator::make_unique_id();
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  *comm = nullptr;
  if (size < 1 || rank < 0 || rank >= size) return ncclInvalidArgument;
  auto clique = emulator::join(id, size, rank);
  if (clique == nullptr) return ncclInvalidUsage;
  return emulator::make_communicator(comm, std::move(clique));
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  const bool waits = config == nullptr || config->blocking != 0;  // the emulator has no other communicators
  return waits ? ncclCommInitRank(comm, size, id, rank) : ncclInvalidUsage;
}
ncclResult_t ncclCommSplit(ncclComm_t comm, int colour, int key, ncclComm_t* part, ncclConfig_t* /*config*/) {
  if (comm == nullptr) return ncclInvalidArgument;
  auto clique = emulator::split(*comm->clique, colour, key);
  *part = nullptr;
  return clique == nullptr ? ncclSuccess : emulator::make_communicator(part, std::move(clique));
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return comm == nullptr ? ncclInvalidArgument : ncclSuccess;
}
// What is queued still runs; MPI's communicator lives until MPI_Finalize, since giving it back is collective.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm == nullptr) return ncclInvalidArgument;
  delete comm;
  return emulator::launch_order.remove_communicator() == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}
// From any thread: a call that waits for other ranks gives up.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (comm == nullptr) return ncclInvalidArgument;
  comm->clique->aborted = true;
  return ncclCommDestroy(comm);
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  if (comm == nullptr) return ncclInvalidArgument;
  *error = comm->clique->error;
  return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  if (comm == nullptr) return ncclInvalidArgument;
  *count = comm->clique->size;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  if (comm == nullptr) return ncclInvalidArgument;
  *rank = comm->clique->rank;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr const char* kTexts[] = {"no error",
                                    "unhandled cuda error",
                                    "unhandled system error",
                                    "internal error",
                                    "invalid argument",
                                    "invalid usage",
                                    "remote process exited or there was a network error",
                                    "NCCL operation in progress"};
  return result >= 0 && result < ncclNumResults ? kTexts[result] : "unknown result code";
}
const char* ncclGetLastError(ncclComm_t /*comm*/) {
  return "";
}

ncclResult_t ncclGroupStart() {
  ++emulator::group().depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  emulator::Group& group = emulator::group();
  if (group.depth == 0) return ncclInvalidUsage;
  if (--group.depth > 0 || group.calls.empty()) return ncclSuccess;
  return emulator::run(group.stream, std::exchange(group.calls, {}));
}

}  // extern "C"
