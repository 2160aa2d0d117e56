// NCCL's collectives and messages between two ranks.
#include <nccl.h>

#include <cstring>

#include "nccl/queue.h"
#include "nccl/reduction.h"

namespace emulator {
namespace {

ncclResult_t check(ncclComm_t comm, ncclDataType_t type) {
  return comm == nullptr || bytes_of(type) == 0 ? ncclInvalidArgument : ncclSuccess;
}
ncclResult_t check_peer(ncclComm_t comm, ncclDataType_t type, int peer) {
  if (const auto result = check(comm, type); result != ncclSuccess) return result;
  return peer < 0 || peer >= comm->clique->size ? ncclInvalidArgument : ncclSuccess;
}
ncclResult_t check_reduction(ncclComm_t comm, ncclDataType_t type, ncclRedOp_t operation) {
  if (const auto result = check(comm, type); result != ncclSuccess) return result;
  return can_reduce(type, operation) ? ncclSuccess : ncclInvalidArgument;
}

// A call of all ranks, whose messages are added by its kind.
class Collective {
 public:
  Collective(ncclComm_t comm, Kind kind, size_t count, ncclDataType_t type, int detail = 0)
      : type_(type), count_(count) {
    call_.clique = comm->clique;
    call_.request = {kind, 0, static_cast<int64_t>(count), type, detail};
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) call_.others.push_back(r);
    }
  }

  int rank() const { return call_.clique->rank; }
  int size() const { return call_.clique->size; }

  // `count` elements, those of index `block` in the buffer.
  void send(int to, const void* buffer, int block = 0) { add(call_.sends, to, const_cast<void*>(buffer), block); }
  void receive(int from, void* buffer, int block = 0) { add(call_.receives, from, buffer, block); }

  // Receives every rank's part and reduces them in the order of ranks, so that all get the same bits.
  void reduce_into(void* buffer, ncclRedOp_t operation) {
    const size_t bytes = count_ * bytes_of(type_);
    for (int r = 0; r < size(); ++r) {
      call_.parts.push_back(std::make_unique<std::byte[]>(bytes));
      receive(r, call_.parts.back().get());
    }
    call_.finish = [buffer, bytes, operation, type = type_, count = count_](const Call& call) {
      std::byte* total = call.parts[0].get();
      for (size_t r = 1; r < call.parts.size(); ++r) reduce(type, operation, total, call.parts[r].get(), count);
      finish_reduction(type, operation, total, count, static_cast<int>(call.parts.size()));
      if (bytes > 0) std::memcpy(buffer, total, bytes);
    };
  }

  ncclResult_t submit(cudaStream_t stream) { return emulator::submit(std::move(call_), stream); }

 private:
  void add(std::vector<Message>& messages, int peer, void* buffer, int block) {
    const size_t bytes = count_ * bytes_of(type_);
    messages.push_back({peer, static_cast<std::byte*>(buffer) + static_cast<size_t>(block) * bytes, bytes});
  }

  Call call_;
  ncclDataType_t type_;
  size_t count_;
};

ncclResult_t pair(Kind kind, void* buffer, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                  cudaStream_t stream) {
  if (const auto result = check_peer(comm, type, peer); result != ncclSuccess) return result;
  Call call = {.clique = comm->clique,
               .request = {kind, -1, static_cast<int64_t>(count), type, 0},
               .others = peer == comm->clique->rank ? std::vector<int>{} : std::vector<int>{peer}};
  (kind == Kind::kSend ? call.sends : call.receives)
      .push_back({peer, static_cast<std::byte*>(buffer), count * bytes_of(type)});
  return submit(std::move(call), stream);
}

}  // namespace
}  // namespace emulator

using emulator::Collective;
using emulator::Kind;

extern "C" {

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
  if (const auto result = emulator::check_reduction(comm, type, operation); result != ncclSuccess) return result;
  Collective call(comm, Kind::kAllReduce, count, type, operation);
  for (int r = 0; r < call.size(); ++r) call.send(r, in);
  call.reduce_into(out, operation);
  return call.submit(stream);
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                               ncclComm_t comm, cudaStream_t stream) {
  if (const auto result = emulator::check_reduction(comm, type, operation); result != ncclSuccess) return result;
  Collective call(comm, Kind::kReduceScatter, count, type, operation);
  for (int r = 0; r < call.size(); ++r) call.send(r, in, r);
  call.reduce_into(out, operation);
  return call.submit(stream);
}
ncclResult_t ncclReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t operation, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  if (const auto result = emulator::check_reduction(comm, type, operation); result != ncclSuccess) return result;
  if (const auto result = emulator::check_peer(comm, type, root); result != ncclSuccess) return result;
  Collective call(comm, Kind::kReduce, count, type, root * ncclNumOps + operation);
  call.send(root, in);
  if (call.rank() == root) call.reduce_into(out, operation);
  return call.submit(stream);
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  if (const auto result = emulator::check_peer(comm, type, root); result != ncclSuccess) return result;
  Collective call(comm, Kind::kBroadcast, count, type, root);
  for (int r = 0; call.rank() == root && r < call.size(); ++r) call.send(r, in);
  call.receive(root, out);
  return call.submit(stream);
}
ncclResult_t ncclBcast(void* buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
  return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}
ncclResult_t ncclScatter(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                         cudaStream_t stream) {
  if (const auto result = emulator::check_peer(comm, type, root); result != ncclSuccess) return result;
  Collective call(comm, Kind::kScatter, count, type, root);
  for (int r = 0; call.rank() == root && r < call.size(); ++r) call.send(r, in, r);
  call.receive(root, out);
  return call.submit(stream);
}
ncclResult_t ncclGather(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                        cudaStream_t stream) {
  if (const auto result = emulator::check_peer(comm, type, root); result != ncclSuccess) return result;
  Collective call(comm, Kind::kGather, count, type, root);
  call.send(root, in);
  for (int r = 0; call.rank() == root && r < call.size(); ++r) call.receive(r, out, r);
  return call.submit(stream);
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  if (const auto result = emulator::check(comm, type); result != ncclSuccess) return result;
  Collective call(comm, Kind::kAllGather, count, type);
  for (int r = 0; r < call.size(); ++r) call.send(r, in), call.receive(r, out, r);
  return call.submit(stream);
}
ncclResult_t ncclAlltoAll(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                          cudaStream_t stream) {
  if (const auto result = emulator::check(comm, type); result != ncclSuccess) return result;
  Collective call(comm, Kind::kAllToAll, count, type);
  for (int r = 0; r < call.size(); ++r) call.send(r, in, r), call.receive(r, out, r);
  return call.submit(stream);
}

ncclResult_t ncclSend(const void* in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return emulator::pair(Kind::kSend, const_cast<void*>(in), count, type, peer, comm, stream);
}
ncclResult_t ncclRecv(void* out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return emulator::pair(Kind::kReceive, out, count, type, peer, comm, stream);
}

}  // extern "C"
