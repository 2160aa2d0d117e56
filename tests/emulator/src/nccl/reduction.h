// Sums and the like over ranks, one step of one rank after the other.
#pragma once

#include <nccl.h>

#include <cstddef>

namespace emulator {

// 0 for a type that the emulator does not move.
size_t bytes_of(ncclDataType_t type);
const char* name_of(ncclDataType_t type);
const char* name_of(ncclRedOp_t operation);
bool can_reduce(ncclDataType_t type, ncclRedOp_t operation);

// total[i] = operation(total[i], next[i]), rounded to the type every time, as it is on the way through a ring.
void reduce(ncclDataType_t type, ncclRedOp_t operation, void* total, const void* next, size_t count);
// What is left to do when every rank's part is in: ncclAvg divides.
void finish_reduction(ncclDataType_t type, ncclRedOp_t operation, void* total, size_t count, int ranks);

}  // namespace emulator
