#include "cuda/nccl_calls.h"

#include "cuda/nccl_check.h"

namespace mhmoe::cuda {
namespace {

// The first failure of the calls of a group, which is ended in any case.
class CallGroup {
 public:
  explicit CallGroup(ncclComm_t comm) : comm_(comm) { MHMOE_NCCL_CHECK(comm_, ncclGroupStart()); }
  void add(ncclResult_t result, const char* call, int line) {
    if (first_ == ncclSuccess) first_ = result, call_ = call, line_ = line;
  }
  void end() {
    const ncclResult_t ended = ncclGroupEnd();
    check_nccl(first_, comm_, call_, __FILE__, line_);
    check_nccl(ended, comm_, "ncclGroupEnd()", __FILE__, __LINE__);
  }

 private:
  ncclComm_t comm_;
  ncclResult_t first_ = ncclSuccess;
  const char* call_ = "";
  int line_ = 0;
};
#define MHMOE_ADD_CALL(group, call) (group).add((call), #call, __LINE__)

}  // namespace

ncclDataType_t nccl_type(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return ncclFloat32;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kF64:
      return ncclFloat64;
    case DType::kI32:
      return ncclInt32;
    case DType::kI64:
      return ncclInt64;
    case DType::kU8:
      return ncclUint8;
  }
  fail(ExitCode::kInternal, "no NCCL type for {}", tensor.describe());
}

void exchange_blocks(const Tensor& out, const Tensor& in, int size, ncclComm_t comm, cudaStream_t stream) {
  const size_t block = element_count(in) / static_cast<size_t>(size);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0)
  MHMOE_NCCL_CHECK(comm, ncclAlltoAll(in.data, out.data, block, nccl_type(in), comm, stream));
#else
  CallGroup group(comm);
  for (int p = 0; p < size; ++p) {
    const size_t offset = static_cast<size_t>(p) * block * size_of(in.dtype);
    MHMOE_ADD_CALL(group, ncclSend(in.as<std::byte>() + offset, block, nccl_type(in), p, comm, stream));
    MHMOE_ADD_CALL(group, ncclRecv(out.as<std::byte>() + offset, block, nccl_type(in), p, comm, stream));
  }
  group.end();
#endif
}

// Zero rows between two ranks send nothing, which both know.
void exchange_rows(const RowExchange& rows, int rank, ncclComm_t comm, cudaStream_t stream) {
  const auto own = static_cast<size_t>(rank);
  const auto sent = [&](size_t p) { return rows.in.slice_rows(rows.send_begin[p], rows.send_rows[p]); };
  const auto received = [&](size_t p) { return rows.out.slice_rows(rows.receive_begin[p], rows.receive_rows[p]); };
  if (const Tensor in = sent(own); in.count() > 0) {
    MHMOE_CUDA_CHECK(cudaMemcpyAsync(received(own).data, in.data, in.bytes(), cudaMemcpyDeviceToDevice, stream));
  }
  CallGroup group(comm);
  for (size_t p = 0; p < rows.send_rows.size(); ++p) {
    if (p == own) continue;
    const Tensor in = sent(p), out = received(p);
    const int peer = static_cast<int>(p);
    if (in.count() > 0) {
      MHMOE_ADD_CALL(group, ncclSend(in.data, element_count(in), nccl_type(in), peer, comm, stream));
    }
    if (out.count() > 0) {
      MHMOE_ADD_CALL(group, ncclRecv(out.data, element_count(out), nccl_type(out), peer, comm, stream));
    }
  }
  group.end();
}

}  // namespace mhmoe::cuda
