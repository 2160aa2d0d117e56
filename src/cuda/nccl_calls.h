// NCCL's calls for all pairs of a group's ranks.
#pragma once

#include <nccl.h>

#include "device/communicator.h"

namespace mhmoe::cuda {

ncclDataType_t nccl_type(const Tensor& tensor);
inline size_t element_count(const Tensor& tensor) {
  return static_cast<size_t>(tensor.count());
}

// Communicator::all_to_all and all_to_all_rows, of operands that were checked.
void exchange_blocks(const Tensor& out, const Tensor& in, int size, ncclComm_t comm, cudaStream_t stream);
void exchange_rows(const RowExchange& rows, int rank, ncclComm_t comm, cudaStream_t stream);

}  // namespace mhmoe::cuda
