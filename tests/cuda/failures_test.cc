// What goes wrong on a device, as one clear line each: EMULATOR_FAIL makes it happen.
#include "core/log.h"
#include "cuda/emulated_test.h"
#include "ops/elementwise.h"

namespace mhmoe {
namespace {

using WithVariable = test::WithMode;

struct Refusal {
  std::string message = "no error";
  ExitCode code = ExitCode::kOk;
};

Refusal refusal_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.what(), error.code()};
  }
  return {};
}

using DeviceFailures = test::EmulatorOnlyTest;

Refusal open_emulated(const char* failure) {
  const WithVariable with("EMULATOR_FAIL", failure);
  return refusal_of([] { open_backend("emulated", cpu::backend()); });
}

TEST_F(DeviceFailures, AMachineThatCannotBeUsedSaysWhyAndWhatToDo) {
  const std::string begin = "--device emulated: no usable device: ", end = "; use --device cpu";
  const auto expect = [&](const char* failure, const std::string& reason) {
    const Refusal refusal = open_emulated(failure);
    EXPECT_EQ(refusal.message, begin + reason + end);
    EXPECT_EQ(refusal.code, ExitCode::kDevice);
  };
  expect("no_driver", "driver missing (no libcuda.so.1): install NVIDIA's driver for CUDA 13.0 or newer");
  const Refusal old = open_emulated("old_driver");
  EXPECT_EQ(old.code, ExitCode::kDevice);
  EXPECT_TRUE(old.message.starts_with(begin + "driver too old: it is for CUDA ")) << old.message;
  EXPECT_TRUE(old.message.ends_with(", this program needs CUDA 13.0: install a newer NVIDIA driver" + end))
      << old.message;
  expect("no_device", "the driver knows no device: look at nvidia-smi and CUDA_VISIBLE_DEVICES");
  expect("capability:7.5", "device 0 has compute capability 7.5, allowed: 8.0 and newer");
  expect("capability:9.0,no_image",
         "this build has no code for compute capability 9.0, which device 0 has: build it with "
         "-DCMAKE_CUDA_ARCHITECTURES=90");
  EXPECT_EQ(open_emulated("capability:9.0").message, "no error");
}

TEST_F(DeviceFailures, EveryProcessOfAMachineHasADeviceOfItsOwn) {
  const WithVariable rank("SLURM_LOCALID", "3");
  const WithVariable devices("EMULATOR_DEVICES", "2");
  EXPECT_EQ(refusal_of([] { open_backend("emulated", cpu::backend()); }).message,
            "--device emulated: no usable device: process 3 of this machine has no device of its own: 2 are visible; "
            "start one process a device, or let each see only its own (CUDA_VISIBLE_DEVICES); use --device cpu");
  const WithVariable more("EMULATOR_DEVICES", "4");
  EXPECT_EQ(refusal_of([] { open_backend("emulated", cpu::backend()); }).message, "no error");
}

// As with one GPU a task, which every process knows as device 0.
TEST_F(DeviceFailures, TheOnlyVisibleDeviceBelongsToTheProcess) {
  const WithVariable rank("SLURM_LOCALID", "3");
  const WithVariable devices("EMULATOR_DEVICES", "1");
  EXPECT_EQ(refusal_of([] {
              const Backend& backend = *open_backend("emulated", cpu::backend()).backend;
              EXPECT_TRUE(backend.prefers_bf16(3));
              EXPECT_EQ(backend.create_context(3)->name(), "emulated CUDA (correctness only)");
            }).message,
            "no error");
}

TEST_F(DeviceFailures, ARefusedCallSaysWhichWhereAndOnWhatRankAndDevice) {
  const WithVariable rank("OMPI_COMM_WORLD_RANK", "3");
  const WithVariable fail("EMULATOR_FAIL", "launch:1");
  const test::Twin x = random(DType::kF32, {8}), y = random(DType::kF32, {8});
  const Refusal refusal = refusal_of([&] { ops::add(emulated(), {y.emulated, x.emulated, x.emulated}); });
  EXPECT_TRUE(refusal.message.starts_with("CUDA: cudaLaunchKernelEx(")) << refusal.message;
  EXPECT_NE(refusal.message.find(" at launch.h:"), std::string::npos) << refusal.message;
  EXPECT_TRUE(refusal.message.ends_with(
      " on rank 3, device 0: too many resources requested for launch (cudaErrorLaunchOutOfResources)"))
      << refusal.message;
  EXPECT_EQ(refusal.code, ExitCode::kDevice);
}

TEST_F(DeviceFailures, OutOfMemoryNamesTheTensorTheLargestOthersAndTheWayOut) {
  Context& ctx = emulated();
  ctx.step().allocate("expert rows", DType::kF32, {int64_t{1} << 20});
  ctx.step().allocate("routing", DType::kI32, {int64_t{1} << 18});
  const WithVariable fail("EMULATOR_FAIL", "malloc:1");
  const Refusal refusal = refusal_of([&] { ctx.step().allocate("logits chunk", DType::kF32, {64, 4096}); });
  EXPECT_EQ(refusal.code, ExitCode::kMemory);
  EXPECT_TRUE(refusal.message.starts_with("CUDA: out of memory on rank 0, device 0: 1048576 bytes asked for, "))
      << refusal.message;
  EXPECT_TRUE(refusal.message.ends_with(
      " bytes free; asked for by 'logits chunk' f32[64, 4096] of the step memory: 'expert rows' 4.0 MiB, "
      "'routing' 1.0 MiB; the state memory has 0.0 MiB; use a smaller train.micro_batch_sequences, train.recompute: "
      "block, a smaller model, or more devices; mhmoe plan shows the need"))
      << refusal.message;
}

// In a process of its own: the device stays broken. It ends with the error's text and the lines of log before.
TEST_F(DeviceFailures, AKernelsFaultIsReportedOnceWithTheOpThatWasStartedLast) {
  const auto run = [] {
    setenv("EMULATOR_FAIL", "fault:1", 1);
    const int64_t errors_before = log::lines(log::Level::kError);
    Refusal refusal;
    {
      const auto ctx = open_backend("emulated", cpu::backend()).backend->create_context(0);
      const Tensor x = ctx->step().allocate("x", DType::kF32, {8}), sum = ctx->step().allocate("sum", DType::kF32, {1});
      float host = 0;
      refusal = refusal_of([&] {
        ctx->fill_zero(x);
        ctx->fill_zero(sum);
        ops::reduce(*ctx, {.out = sum, .in = x});
        ctx->download(&host, sum);
      });
    }
    fmt::print(stderr, "{} | code {} | {} lines", refusal.message, static_cast<int>(refusal.code),
               log::lines(log::Level::kError) - errors_before);
    std::_Exit(0);
  };
  EXPECT_EXIT(
      run(), testing::ExitedWithCode(0),
      "on rank 0, device .*: an illegal memory access was encountered .cudaErrorIllegalAddress.; a kernel failed "
      "and this process can no longer use the device; the op started last was Reduce, an earlier one may be the "
      "cause: run again with CUDA_LAUNCH_BLOCKING=1, from the last checkpoint . code 69 . 0 lines");
}

}  // namespace
}  // namespace mhmoe
