// What tests of ops share: a CPU context, tensors filled in known ways, and comparison with expected values.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/parallel_for.h"
#include "core/philox.h"
#include "device_under_test.h"
#include "ops/kernel_table.h"
#include "ops/sentinels.h"

namespace mhmoe::test {

// Largest relative error of rounding to the type.
inline double unit_roundoff(DType dtype) {
  return dtype == DType::kBF16 ? 0x1p-8 : 0x1p-24;
}

// The device whose tensors the running test reads and writes in place; null where they are the host's own.
inline Context*& context_under_test() {
  static Context* context = nullptr;
  return context;
}

// The tensor's elements in place, after waiting for what the device has been asked to do. A test that reads or writes
// elements does so through this, or through the functions below, which call it: ops only queue their work.
template <class T>
T* host(const Tensor& tensor) {
  if (context_under_test() != nullptr) context_under_test()->synchronize();
  return tensor.as<T>();
}

inline void write_value(const Tensor& tensor, int64_t i, double value) {
  switch (tensor.dtype) {
    case DType::kF32:
      host<float>(tensor)[i] = static_cast<float>(value);
      return;
    case DType::kBF16:
      host<bfloat16>(tensor)[i] = bfloat16(static_cast<float>(value));
      return;
    case DType::kI32:
      host<int32_t>(tensor)[i] = static_cast<int32_t>(value);
      return;
    default:
      FAIL() << "no test writes " << to_string(tensor.dtype);
  }
}

inline double read_value(const Tensor& tensor, int64_t i) {
  switch (tensor.dtype) {
    case DType::kF32:
      return host<float>(tensor)[i];
    case DType::kBF16:
      return static_cast<float>(host<bfloat16>(tensor)[i]);
    case DType::kI32:
      return host<int32_t>(tensor)[i];
    default:
      ADD_FAILURE() << "no test reads " << to_string(tensor.dtype);
      return 0;
  }
}

inline std::vector<double> values(const Tensor& tensor) {
  std::vector<double> result(static_cast<size_t>(tensor.count()));
  for (size_t i = 0; i < result.size(); ++i) result[i] = read_value(tensor, static_cast<int64_t>(i));
  return result;
}

// |actual - expected| <= tolerance, element by element; reports the worst element with its coordinates. Not-a-number
// equals nothing.
inline void expect_close(const std::string& what, const Tensor& actual, std::span<const double> expected,
                         std::span<const double> tolerance) {
  ASSERT_EQ(actual.count(), static_cast<int64_t>(expected.size())) << what;
  ASSERT_EQ(expected.size(), tolerance.size()) << what;
  double worst = 1;
  int64_t at = -1;
  for (int64_t i = 0; i < actual.count(); ++i) {
    const double error = std::abs(read_value(actual, i) - expected[i]);
    const double ratio = error == 0 ? 0 : error / tolerance[i];
    if (!(ratio <= worst)) worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio, at = i;
  }
  if (at < 0) return;
  const int64_t cols = std::max<int64_t>(actual.cols(), 1);
  ADD_FAILURE() << what << " " << actual.describe() << ": worst at row " << at / cols << ", column " << at % cols
                << ": found " << read_value(actual, at) << ", expected " << expected[at] << " within " << tolerance[at];
}

inline void expect_close(const std::string& what, const Tensor& actual, std::span<const double> expected,
                         double tolerance) {
  expect_close(what, actual, expected, std::vector<double>(expected.size(), tolerance));
}

inline void expect_equal(const std::string& what, const Tensor& actual, std::span<const double> expected) {
  expect_close(what, actual, expected, 0.0);
}

// The tests read and write tensors in place, so the host must reach the memory of the device under test: cpu, emulated,
// or cuda with MHMOE_MANAGED_MEMORY set. Tensors live in the context's step arena until the test ends, between
// sentinels that are checked then. A new tensor that an op must overwrite comes from garbage(), so that an element left
// alone shows as not-a-number.
class OpTest : public testing::Test {
 protected:
  OpTest() : ctx_(backend_under_test().create_context(0)) { context_under_test() = ctx_.get(); }
  ~OpTest() override { context_under_test() = nullptr; }
  void TearDown() override { sentinels_.check(*ctx_); }

  Context& ctx() { return *ctx_; }

  Tensor filled(DType dtype, std::initializer_list<int64_t> dims, double value) {
    const Tensor tensor = allocate(dtype, dims);
    for (int64_t i = 0; i < tensor.count(); ++i) write_value(tensor, i, value);
    return tensor;
  }
  Tensor zeros(DType dtype, std::initializer_list<int64_t> dims) { return filled(dtype, dims, 0); }
  Tensor garbage(DType dtype, std::initializer_list<int64_t> dims) {
    return filled(dtype, dims, dtype == DType::kI32 ? -1000003 : std::numeric_limits<double>::quiet_NaN());
  }
  // Normal with this standard deviation; every call draws other values.
  Tensor random(DType dtype, std::initializer_list<int64_t> dims, double deviation = 1) {
    const Philox philox(1, "test " + std::to_string(drawn_++));
    const Tensor tensor = allocate(dtype, dims);
    for (int64_t i = 0; i < tensor.count(); ++i) write_value(tensor, i, deviation * philox.normal(i));
    return tensor;
  }
  Tensor given(DType dtype, std::initializer_list<int64_t> dims, const std::vector<double>& elements) {
    const Tensor tensor = allocate(dtype, dims);
    EXPECT_EQ(tensor.count(), static_cast<int64_t>(elements.size()));
    for (int64_t i = 0; i < tensor.count(); ++i) write_value(tensor, i, elements[i]);
    return tensor;
  }
  Tensor copy_of(const Tensor& tensor) {
    Tensor copy = allocate(tensor.dtype, {tensor.count()});
    ctx_->copy(copy, tensor);
    copy.dims = tensor.dims, copy.rank = tensor.rank;
    return copy;
  }

 private:
  Tensor allocate(DType dtype, std::initializer_list<int64_t> dims) { return sentinels_.allocate(*ctx_, dtype, dims); }

  std::unique_ptr<Context> ctx_;
  Sentinels sentinels_;
  int drawn_ = 0;
};

}  // namespace mhmoe::test
