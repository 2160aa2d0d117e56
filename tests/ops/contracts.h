// A table of an op's tensor arguments, and the check that each wrong one is refused by name: in a sizing pass, so that
// no kernel runs.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device/context.h"

namespace mhmoe::test {

// What is special about a tensor argument.
enum Trait : unsigned {
  kPlain = 0,
  kOptional = 1,      // may be absent
  kDefinesShape = 2,  // others are measured by it: its wrong shape is reported, but as theirs
  kAnyRows = 4,       // the first dimension is free
};

template <class Args>
struct Field {
  const char* name;
  std::function<Tensor&(Args&)> tensor;
  unsigned traits = kPlain;
};

class Contracts : public testing::Test {
 protected:
  Contracts() : ctx_(make_sizing_context(DeviceKind::kCpu, nullptr)) {}

  Tensor f32(std::initializer_list<int64_t> dims) { return ctx_->step().allocate("f32", DType::kF32, dims); }
  Tensor bf16(std::initializer_list<int64_t> dims) { return ctx_->step().allocate("bf16", DType::kBF16, dims); }
  Tensor i32(std::initializer_list<int64_t> dims) { return ctx_->step().allocate("i32", DType::kI32, dims); }

  template <class Args>
  std::string error_of(void (*op)(Context&, const Args&), const Args& args) {
    try {
      op(*ctx_, args);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInternal);
      return error.what();
    }
    return "no error";
  }

  // `valid` passes; with any one tensor changed it is refused by a message that begins "[op] argument ".
  template <class Args>
  void expect_checked(const std::string& name, void (*op)(Context&, const Args&), const Args& valid,
                      const std::vector<Field<Args>>& fields) {
    EXPECT_EQ(error_of(op, valid), "no error");
    for (const Field<Args>& field : fields) {
      const std::string prefix = "[" + name + "] ";
      const auto expect_refusal = [&](const char* what, const std::string& expected, auto change) {
        Args wrong = valid;
        change(field.tensor(wrong));
        const std::string found = error_of(op, wrong);
        EXPECT_EQ(found.rfind(expected, 0), 0u) << name << "'s " << field.name << " with " << what << ": " << found;
      };
      const std::string named = prefix + field.name + " ";
      const std::string shape_named = (field.traits & kDefinesShape) != 0 ? prefix : named;
      expect_refusal("another type", named, [](Tensor& t) { t.dtype = DType::kF64; });
      expect_refusal("another device", named, [](Tensor& t) { t.device = DeviceKind::kCuda; });
      if ((field.traits & kOptional) == 0) expect_refusal("nothing", named, [](Tensor& t) { t = Tensor(); });
      if ((field.traits & kAnyRows) == 0) expect_refusal("more rows", shape_named, [](Tensor& t) { ++t.dims[0]; });
      const int rank = field.tensor(const_cast<Args&>(valid)).rank;
      if (rank > 1) expect_refusal("more columns", shape_named, [rank](Tensor& t) { ++t.dims[rank - 1]; });
    }
  }

  // With one scalar wrong the message begins like this.
  template <class Args>
  void expect_refused(void (*op)(Context&, const Args&), const std::string& beginning, const Args& wrong) {
    const std::string found = error_of(op, wrong);
    EXPECT_EQ(found.rfind(beginning, 0), 0u) << found;
  }

 private:
  std::unique_ptr<Context> ctx_;
};

}  // namespace mhmoe::test
