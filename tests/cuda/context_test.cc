// The CUDA context's promises to the host: order between streams, uploads that do not wait, recorded work.
#include <dlfcn.h>

#include <filesystem>
#include <numeric>

#include "cuda/emulated_test.h"
#include "ops/elementwise.h"

namespace mhmoe {
namespace {

using test::WithStreams;

constexpr int64_t kCount = 64;
constexpr const char* kDeferred[] = {"deferred:1", "deferred:2", "deferred:3",
                                     "deferred:4", "deferred:5", "deferred:6"};

class CudaContext : public test::EmulatorOnlyTest {
 protected:
  void SetUp() override {
    EmulatorOnlyTest::SetUp();
    if (IsSkipped()) return;
    const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libmhmoe_emulated.so";
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(handle, nullptr) << dlerror();
    add_ = reinterpret_cast<decltype(add_)>(dlsym(handle, "mhmoe_test_add_on_stream"));
    ASSERT_NE(add_, nullptr);
  }

  void add(Stream stream, const Tensor& out, const Tensor& in) { add_(emulated(), stream, out, in); }

  Tensor uploaded(float value) {
    const Tensor tensor = emulated().step().allocate("test", DType::kF32, {kCount});
    const std::vector<float> values(kCount, value);
    emulated().upload(tensor, values.data());
    return tensor;
  }
  std::vector<float> host(const Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.count()));
    emulated().download(values.data(), tensor);
    return values;
  }
  std::string error_of(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInternal);
      return error.what();
    }
    return "no error";
  }

 private:
  void (*add_)(Context&, Stream, const Tensor&, const Tensor&) = nullptr;
};

// 1 goes from the compute stream to the communication stream and back, doubled on either: 4, and 4 more at the end.
std::vector<float> there_and_back(Context& ctx, const Tensor& x, const Tensor& y, bool waits, const auto& add) {
  const auto wait = [&](Stream waiting, Stream other) {
    const StreamMark mark = ctx.mark(other);
    if (waits) ctx.wait(waiting, mark);
  };
  ctx.fill_zero(y);
  add(Stream::kCompute, x, x);
  wait(Stream::kCommunication, Stream::kCompute);
  add(Stream::kCommunication, y, x);
  add(Stream::kCommunication, y, y);
  wait(Stream::kCompute, Stream::kCommunication);
  add(Stream::kCompute, x, y);
  std::vector<float> values(kCount);
  ctx.download(values.data(), x);
  return values;
}

TEST_F(CudaContext, AStreamThatWaitsForAMarkSeesAllThatLiesBeforeIt) {
  int wrong_without = 0;
  for (const char* seed : kDeferred) {
    const WithStreams with(seed);
    const auto on = [this](Stream stream, const Tensor& out, const Tensor& in) { add(stream, out, in); };
    EXPECT_EQ(there_and_back(emulated(), uploaded(1), uploaded(7), true, on), std::vector<float>(kCount, 6)) << seed;
    const auto found = there_and_back(emulated(), uploaded(1), uploaded(7), false, on);
    wrong_without += found != std::vector<float>(kCount, 6) ? 1 : 0;
    emulated().synchronize();
  }
  EXPECT_GT(wrong_without, 0) << "the test has nothing to see";
}

// The emulated device's memory is the host's, so that it can be looked at without a download.
TEST_F(CudaContext, SynchronizeWaitsForBothStreams) {
  for (const char* seed : kDeferred) {
    const WithStreams with(seed);
    const Tensor one = uploaded(1), on_compute = uploaded(2), on_communication = uploaded(3);
    emulated().synchronize();
    add(Stream::kCompute, on_compute, one);
    add(Stream::kCommunication, on_communication, one);
    emulated().synchronize();
    EXPECT_EQ(on_compute.as<float>()[kCount - 1], 3) << seed;
    EXPECT_EQ(on_communication.as<float>()[kCount - 1], 4) << seed;
  }
}

// What compute writes into the same memory after the scope comes after the communication stream's last look at it.
TEST_F(CudaContext, AScopesMemoryIsFreeWhenCommunicationIsDoneWithIt) {
  int wrong_without = 0;
  for (const char* seed : kDeferred) {
    for (const bool scoped : {true, false}) {
      const WithStreams with(seed);
      const Tensor out = uploaded(0);
      emulated().synchronize();
      const auto use = [&] {
        const Tensor in = uploaded(5);
        emulated().wait(Stream::kCommunication, emulated().mark(Stream::kCompute));
        add(Stream::kCommunication, out, in);
      };
      if (scoped) {
        const CommunicationScope scope(emulated());
        use();
      } else {
        const ArenaScope scope(emulated().step());
        use();
      }
      uploaded(100);
      emulated().synchronize();
      const bool right = host(out) == std::vector<float>(kCount, 5);
      if (scoped) {
        EXPECT_TRUE(right) << seed;
      } else {
        wrong_without += right ? 0 : 1;
      }
    }
  }
  EXPECT_GT(wrong_without, 0) << "the test has nothing to see";
}

// And what the communication stream writes there comes after compute's last look at it before the scope.
TEST_F(CudaContext, AScopesMemoryIsFreeWhenComputeIsDoneWithIt) {
  int wrong_without = 0;
  for (int number = 1; number <= 30; ++number) {
    const std::string seed = fmt::format("deferred:{}", number);
    for (const bool scoped : {true, false}) {
      const WithStreams with(seed.c_str());
      const Tensor out = uploaded(0), one = uploaded(1), used = uploaded(5);
      emulated().synchronize();
      {
        const ArenaScope scope(emulated().step());
        const Tensor in = emulated().step().allocate("test", DType::kF32, {kCount});
        emulated().copy(in, used);
        add(Stream::kCompute, out, in);
      }
      const auto use = [&] {
        add(Stream::kCommunication, emulated().step().allocate("test", DType::kF32, {kCount}), one);
      };
      if (scoped) {
        const CommunicationScope scope(emulated());
        use();
      } else {
        const ArenaScope scope(emulated().step());
        use();
      }
      // Either stream may come first until the download.
      if (!scoped) emulated().wait(Stream::kCompute, emulated().mark(Stream::kCommunication));
      const bool right = host(out) == std::vector<float>(kCount, 5);
      if (scoped) {
        EXPECT_TRUE(right) << seed;
      } else {
        wrong_without += right ? 0 : 1;
      }
    }
  }
  EXPECT_GT(wrong_without, 0) << "the test has nothing to see";
}

TEST_F(CudaContext, OldMarksAreRefused) {
  const StreamMark first = emulated().mark(Stream::kCompute);
  for (int i = 0; i < 31; ++i) emulated().mark(Stream::kCommunication);
  emulated().wait(Stream::kCommunication, first);
  emulated().mark(Stream::kCompute);
  EXPECT_EQ(error_of([&] { emulated().wait(Stream::kCommunication, first); }),
            "a wait for mark 0, of which the last 32 are kept, up to 32");
}

// More than the ring of pinned memory holds, from a host buffer that is overwritten at once.
TEST_F(CudaContext, UploadsHaveLeftTheHostMemoryWhenTheyReturn) {
  for (const char* seed : {"eager", "deferred:1"}) {
    const WithStreams with(seed);
    const ArenaScope scope(emulated().step());
    const int64_t count = (int64_t{6} << 20) / 4 + 3;
    const Tensor large = emulated().step().allocate("large", DType::kF32, {count});
    const Tensor small = emulated().step().allocate("small", DType::kF32, {3});
    std::vector<float> values(static_cast<size_t>(count));
    std::iota(values.begin(), values.end(), 0.0F);
    const std::vector<float> expected = values;
    emulated().upload(small, values.data() + 1);
    emulated().upload(large, values.data());
    std::fill(values.begin(), values.end(), -1.0F);
    EXPECT_EQ(host(small), (std::vector<float>{1, 2, 3})) << seed;
    EXPECT_EQ(host(large), expected) << seed;
  }
}

TEST_F(CudaContext, PlannedUploadsNeverWait) {
  const WithStreams with("deferred:1");
  const int64_t count = int64_t{1} << 20;
  const Tensor tensor = emulated().step().allocate("batch", DType::kF32, {count});
  const std::vector<float> values(static_cast<size_t>(count), 1.0F);
  const auto upload_many = [&](int times) {
    const NoHostSync guard(emulated(), true);
    for (int i = 0; i < times; ++i) emulated().upload(tensor, values.data());
  };
  EXPECT_EQ(error_of([&] { upload_many(2); }),
            "Context::upload waits for the device within the queued part of a step (train.forbid_host_sync)");
  emulated().plan_uploads(2 * tensor.bytes());
  for (int step = 0; step < 5; ++step) {
    EXPECT_EQ(error_of([&] { upload_many(2); }), "no error") << step;
    emulated().synchronize();
  }
}

TEST_F(CudaContext, ForbiddenWaitsAreNamed) {
  const Tensor tensor = uploaded(1);
  std::vector<float> values(kCount);
  const NoHostSync guard(emulated(), true);
  const std::string rest = " waits for the device within the queued part of a step (train.forbid_host_sync)";
  EXPECT_EQ(error_of([&] { emulated().download(values.data(), tensor); }), "Context::download" + rest);
  EXPECT_EQ(error_of([&] { emulated().synchronize(); }), "Context::synchronize" + rest);
  const std::string grown = error_of([&] { emulated().step().allocate("too much", DType::kF32, {int64_t{16} << 20}); });
  EXPECT_EQ(grown, "arena 'step': 'too much' f32[16777216] does not fit its blocks, and none may be added now");
}

TEST_F(CudaContext, RecordedWorkRunsWhenItIsReplayedAndWithTheNumbersOfThen) {
  for (const char* seed : {"eager", "deferred:1", "deferred:2"}) {
    const WithStreams with(seed);
    const Tensor x = uploaded(3), sum = uploaded(0).slice(0, 1), scale = uploaded(2).slice(0, 1);
    const auto work = [&] {
      const ArenaScope scope(emulated().step());
      const Tensor twice = emulated().step().allocate("twice", DType::kF32, {kCount});
      ops::add(emulated(), {.out = twice, .a = x, .b = x});
      emulated().wait(Stream::kCommunication, emulated().mark(Stream::kCompute));
      add(Stream::kCommunication, twice, x);
      emulated().wait(Stream::kCompute, emulated().mark(Stream::kCommunication));
      ops::reduce(emulated(), {.out = sum, .in = twice, .scale = scale});
    };
    work();
    EXPECT_EQ(host(sum), std::vector<float>{kCount * 3 * 3 * 2}) << seed;
    emulated().fill_zero(sum);
    const std::unique_ptr<RecordedWork> recorded = emulated().record(work);
    EXPECT_EQ(host(sum), std::vector<float>{0}) << "recording ran the work, " << seed;
    recorded->replay();
    recorded->replay();
    EXPECT_EQ(host(sum), std::vector<float>{2 * kCount * 3 * 3 * 2}) << seed;
    const std::vector<float> one(kCount, 1);
    emulated().fill_zero(sum);
    emulated().upload(x, one.data());
    emulated().upload(scale, one.data());
    recorded->replay();
    EXPECT_EQ(host(sum), std::vector<float>{kCount * 3}) << seed;
  }
}

TEST_F(CudaContext, WhatCannotBeRecordedIsRefusedAndLeavesTheStreamAsItWas) {
  const Tensor x = uploaded(3);
  std::vector<float> values(kCount, 4);
  Context& ctx = emulated();
  EXPECT_EQ(error_of([&] { ctx.record([&] { ctx.upload(x, values.data()); }); }), "upload of f32[64] in recorded work");
  EXPECT_EQ(error_of([&] { ctx.record([&] { ctx.download(values.data(), x); }); }),
            "Context::download in recorded work");
  EXPECT_EQ(error_of([&] { ctx.record([&] { ctx.synchronize(); }); }), "Context::synchronize in recorded work");
  EXPECT_EQ(error_of([&] { ctx.record([&] { ctx.record([] {}); }); }),
            "emulated CUDA (correctness only) cannot record work within a recording");
  EXPECT_EQ(error_of([&] {
              ctx.record([&] {
                const ArenaScope scope(ctx.step());
                ctx.step().allocate("large", DType::kF32, {int64_t{16} << 20});
              });
            }),
            "arena 'step': 'large' f32[16777216] does not fit its blocks, and none may be added now");
  ctx.upload(x, values.data());
  EXPECT_EQ(host(x), std::vector<float>(kCount, 4));
  EXPECT_EQ(error_of([&] { cpu().record([] {}); }), cpu().name() + " cannot record work");
}

}  // namespace
}  // namespace mhmoe
