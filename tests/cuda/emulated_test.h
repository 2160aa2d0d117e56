// What tests on the emulated device share: the same tensors on the CPU and on it, and thread orders. MHMOE_TEST_DEVICE
// puts another device in its place, cuda for one, where the emulator's modes only repeat what is run.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/philox.h"
#include "cpu/backend.h"
#include "ops/op_test.h"

namespace mhmoe::test {

constexpr double kRoundoff = 0x1p-24;  // of f32, relative

// The emulator's modes: the order of threads and blocks, and when work on a stream runs. The first twice: a second run
// must give the same bytes too.
struct Mode {
  const char *order, *streams;
};
constexpr Mode kModes[] = {{"forward", "eager"},
                           {"forward", "eager"},
                           {"reversed", "eager"},
                           {"random:1", "deferred:1"},
                           {"random:2", "eager"}};

// Sets one of the emulator's modes, which it reads at every launch, until the end of a scope.
class WithMode {
 public:
  WithMode(const char* variable, const char* value) : variable_(variable) { setenv(variable, value, 1); }
  ~WithMode() { unsetenv(variable_); }
  WithMode(const WithMode&) = delete;
  WithMode& operator=(const WithMode&) = delete;

 private:
  const char* variable_;
};
// The order of threads and blocks.
struct WithOrder : WithMode {
  explicit WithOrder(const char* order) : WithMode("EMULATOR_ORDER", order) {}
};
// When work runs that was put on a stream: eager (default) or deferred:SEED.
struct WithStreams : WithMode {
  explicit WithStreams(const char* streams) : WithMode("EMULATOR_STREAMS", streams) {}
};
// When cp.async's bytes arrive: wait (default) or issue.
struct WithCopies : WithMode {
  explicit WithCopies(const char* at) : WithMode("EMULATOR_CP_ASYNC", at) {}
};

// The same contents on both devices until an op runs.
struct Twin {
  Tensor cpu, emulated;
};

// The device beside the CPU.
inline std::string tested_device() {
  const char* device = std::getenv("MHMOE_TEST_DEVICE");
  return device == nullptr ? "emulated" : device;
}
inline const Backend& tested_backend() {
  return *open_backend(tested_device(), cpu::backend()).backend;
}

// Tensors live until the test ends, between sentinels that are checked then.
class EmulatedTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!MHMOE_HAS_EMULATED && tested_device() == "emulated") {
      GTEST_SKIP() << "skipped: no CUDA headers were found when this was built";
    }
    cpu_ = cpu::backend().create_context(0);
    emulated_ = tested_backend().create_context(0);
  }

  void TearDown() override {
    if (emulated_ == nullptr) return;
    cpu_sentinels_.check(*cpu_);
    emulated_sentinels_.check(*emulated_);
  }

  Context& cpu() { return *cpu_; }
  Context& emulated() { return *emulated_; }

  // Uploads what the CPU's tensor has now.
  void refresh(const Twin& twin) { emulated_->upload(twin.emulated, twin.cpu.data); }

  Twin filled(DType dtype, std::initializer_list<int64_t> dims, double value) {
    const Twin twin = allocate(dtype, dims);
    for (int64_t i = 0; i < twin.cpu.count(); ++i) write_value(twin.cpu, i, value);
    refresh(twin);
    return twin;
  }
  Twin garbage(DType dtype, std::initializer_list<int64_t> dims) {
    return filled(dtype, dims, dtype == DType::kI32 ? -1000003 : std::numeric_limits<double>::quiet_NaN());
  }
  Twin random(DType dtype, std::initializer_list<int64_t> dims, double deviation = 1) {
    const Philox philox(1, "test " + std::to_string(drawn_++));
    const Twin twin = allocate(dtype, dims);
    for (int64_t i = 0; i < twin.cpu.count(); ++i) write_value(twin.cpu, i, deviation * philox.normal(i));
    refresh(twin);
    return twin;
  }

  Twin given(DType dtype, std::initializer_list<int64_t> dims, const std::vector<double>& elements) {
    const Twin twin = allocate(dtype, dims);
    EXPECT_EQ(twin.cpu.count(), static_cast<int64_t>(elements.size()));
    for (int64_t i = 0; i < twin.cpu.count(); ++i) write_value(twin.cpu, i, elements[i]);
    refresh(twin);
    return twin;
  }

  // Tensors made from now on begin one element behind an address that vector accesses need.
  void unalign(bool on = true) { shift_ = on ? 1 : 0; }

  // The emulated device's tensor, in host memory.
  Tensor downloaded(const Tensor& tensor) {
    Tensor host = cpu_->step().allocate("downloaded", tensor.dtype, {tensor.count()});
    emulated_->download(host.data, tensor);
    host.dims = tensor.dims, host.rank = tensor.rank;
    return host;
  }

  // |emulated - cpu| <= relative * |cpu| + absolute, element by element.
  void expect_agreement(const std::string& what, const Twin& twin, double relative, double absolute) {
    const auto expected = values(twin.cpu);
    std::vector<double> tolerance;
    for (const double value : expected) tolerance.push_back(relative * std::abs(value) + absolute);
    expect_close(what, downloaded(twin.emulated), expected, tolerance);
  }

  // Runs `op` twice and in every mode: the same bytes every time. Outputs are garbage before it runs, so that it must
  // refresh those that are inputs too.
  template <class Op>
  void expect_same_bytes_in_every_order(const std::vector<Tensor>& outputs, Op&& op) {
    std::vector<std::vector<std::byte>> first;
    for (const Mode& mode : kModes) {
      const WithOrder with_order(mode.order);
      const WithStreams with_streams(mode.streams);
      for (const Tensor& output : outputs) spoil(output);
      op();
      std::vector<std::vector<std::byte>> bytes;
      for (const Tensor& output : outputs) {
        bytes.emplace_back(output.bytes());
        emulated_->download(bytes.back().data(), output);
      }
      if (first.empty()) first = bytes;
      for (size_t i = 0; i < outputs.size(); ++i) {
        EXPECT_TRUE(bytes[i] == first[i]) << "output " << i << ", " << outputs[i].describe() << ", order " << mode.order
                                          << ", streams " << mode.streams;
      }
    }
  }

 private:
  void spoil(const Tensor& tensor) {
    const std::vector<uint16_t> garbage((tensor.bytes() + 1) / 2, kSentinel);
    emulated_->upload(tensor, garbage.data());
  }
  Twin allocate(DType dtype, std::initializer_list<int64_t> dims) {
    return {cpu_sentinels_.allocate(*cpu_, dtype, dims, shift_),
            emulated_sentinels_.allocate(*emulated_, dtype, dims, shift_)};
  }

  std::unique_ptr<Context> cpu_, emulated_;
  Sentinels cpu_sentinels_, emulated_sentinels_;
  int64_t shift_ = 0;
  int drawn_ = 0;
};

// For tests of what only the emulator does: work that it delays, failures on demand, modules made for tests.
class EmulatorOnlyTest : public EmulatedTest {
 protected:
  void SetUp() override {
    if (tested_device() != "emulated")
      GTEST_SKIP() << "skipped: needs the emulator, and the device is " << tested_device();
    EmulatedTest::SetUp();
  }
};

}  // namespace mhmoe::test
