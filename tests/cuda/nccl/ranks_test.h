// Tests that four ranks run side by side: mpirun -np 4 test_nccl_communicator. All ranks run every test; tensors hold
// values that tell their rank and place.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cpu/backend.h"
#include "cuda/nccl/mpi_job.h"
#include "device/backend.h"

namespace mhmoe::test {

constexpr int kRanks = 4;

inline MpiJob& job() {
  static MpiJob job;
  return job;
}

class WithVariable {
 public:
  WithVariable(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~WithVariable() { unsetenv(name_); }
  WithVariable(const WithVariable&) = delete;
  WithVariable& operator=(const WithVariable&) = delete;

 private:
  const char* name_;
};

// Another order of work on every rank.
inline std::string deferred(int seed) {
  return fmt::format("deferred:{}", 10 * seed + job().rank());
}

class RanksTest : public testing::Test {
 protected:
  void SetUp() override {
    ctx_ = backend().create_context(0);
    world_ = group({0, 1, 2, 3});
  }
  // After a test that ended early on one rank, all go on together.
  void TearDown() override {
    world_ = nullptr;
    EXPECT_FALSE(job().monitor().registered());
    EXPECT_EQ(job().monitor().depth, 0);
    ctx_ = nullptr;
    MPI_Barrier(MPI_COMM_WORLD);
  }

  static const Backend& backend() { return *find_backend("emulated", cpu::backend()); }
  std::unique_ptr<Communicator> group(const std::vector<int>& ranks) {
    return backend().create_communicator(*ctx_, job(), ranks);
  }

  template <class T>
  Tensor uploaded(const std::vector<T>& values, int64_t columns = 0) {
    const auto count = static_cast<int64_t>(values.size());
    const Tensor tensor = columns == 0 ? ctx_->state().allocate("test", DTypeOf<T>::value, {count})
                                       : ctx_->state().allocate("test", DTypeOf<T>::value, {count / columns, columns});
    ctx_->upload(tensor, values.data());
    return tensor;
  }
  template <class T>
  std::vector<T> downloaded(const Tensor& tensor) {
    std::vector<T> values(static_cast<size_t>(tensor.count()));
    ctx_->download(values.data(), tensor);
    return values;
  }

  // Runs the work in every way that a step may: at once, late in four orders, and recorded and played twice. After each
  // `check` looks at its outputs.
  void in_every_mode(const std::function<void()>& work, const std::function<void(const std::string&)>& check) {
    work();
    check("eager");
    for (int seed = 1; seed <= 4; ++seed) {
      const WithVariable streams("EMULATOR_STREAMS", deferred(seed));
      work();
      check(fmt::format("deferred {}", seed));
      const auto recorded = ctx_->record(work);
      for (int i = 0; i < 2; ++i) {
        recorded->replay();
        check(fmt::format("recorded, deferred {}, replay {}", seed, i));
      }
    }
    const auto recorded = ctx_->record(work);
    recorded->replay();
    recorded->replay();
    check("recorded, eager");
  }

  std::unique_ptr<Context> ctx_;
  std::unique_ptr<Communicator> world_;
  int rank_ = job().rank();
};

}  // namespace mhmoe::test
