#include "core/rank.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace mhmoe {
namespace {

constexpr const char* kOfJob[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
constexpr const char* kOfMachine[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"};

// As a process that no launcher started.
class Rank : public testing::Test {
 protected:
  Rank() { clear(); }
  ~Rank() override { clear(); }

 private:
  static void clear() {
    for (const char* name : kOfJob) unsetenv(name);
    for (const char* name : kOfMachine) unsetenv(name);
  }
};

TEST_F(Rank, IsZeroForAProcessAlone) {
  EXPECT_EQ(process_rank(), 0);
  EXPECT_EQ(local_rank(), 0);
}

TEST_F(Rank, IsWhatTheLauncherSays) {
  for (const char* name : kOfJob) {
    setenv(name, "13", 1);
    EXPECT_EQ(process_rank(), 13) << name;
    EXPECT_EQ(local_rank(), 0) << name;
    unsetenv(name);
  }
  for (const char* name : kOfMachine) {
    setenv(name, "5", 1);
    EXPECT_EQ(local_rank(), 5) << name;
    EXPECT_EQ(process_rank(), 0) << name;
    unsetenv(name);
  }
}

// mpirun inside a Slurm job: the launcher that started this process counts.
TEST_F(Rank, TheInnerLauncherCountsAndWhatIsNoNumberDoesNot) {
  setenv("SLURM_PROCID", "1", 1);
  for (const char* nonsense : {"", "x", "3x", "-1", "99999999999"}) {
    setenv("OMPI_COMM_WORLD_RANK", nonsense, 1);
    EXPECT_EQ(process_rank(), 1) << nonsense;
  }
  setenv("OMPI_COMM_WORLD_RANK", "2", 1);
  EXPECT_EQ(process_rank(), 2);
}

}  // namespace
}  // namespace mhmoe
