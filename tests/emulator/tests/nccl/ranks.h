// What the emulated NCCL's tests share: four ranks that all run every test, mpirun -np 4 test_emulator_nccl.
#pragma once

#include <gtest/gtest.h>
#include <mpi.h>
#include <nccl.h>

#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "emulator/fault.h"

namespace nccl_test {

constexpr int kRanks = 4;
using Floats = std::vector<float>;

inline int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

inline ncclUniqueId shared_id() {
  ncclUniqueId id{};
  if (world_rank() == 0) ncclGetUniqueId(&id);
  MPI_Bcast(&id, sizeof(id), MPI_BYTE, 0, MPI_COMM_WORLD);
  return id;
}

// A new communicator a test: after a fault, messages may be left in the old one.
class Nccl : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(ncclCommInitRank(&comm_, kRanks, shared_id(), rank_), ncclSuccess); }
  void TearDown() override {
    unsetenv("EMULATOR_NCCL_SECONDS");
    MPI_Barrier(MPI_COMM_WORLD);
    EXPECT_TRUE(comm_ == nullptr || ncclCommDestroy(comm_) == ncclSuccess);
  }

  // 1000 * rank + i
  Floats numbered(size_t count) const {
    Floats values(count);
    std::iota(values.begin(), values.end(), static_cast<float>(1000 * rank_));
    return values;
  }

  // The message of the fault that the call ends in; empty if none.
  template <class F>
  static std::string fault(F&& call) {
    try {
      call();
    } catch (const emulator::Fault& error) {
      return error.what();
    }
    return {};
  }

  int rank_ = world_rank();
  ncclComm_t comm_ = nullptr;
};

}  // namespace nccl_test
