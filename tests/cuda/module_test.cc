// The seam between the program and a backend module.
#include <dlfcn.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/log.h"
#include "cuda/emulated_test.h"
#include "emulator/include/emulator/limits.h"

namespace mhmoe {
namespace {

using Module = test::EmulatorOnlyTest;

// At the end of every run on the emulator, so that nobody takes a green one for more than it is.
class Limits : public testing::Environment {
 public:
  void TearDown() override {
    if (MHMOE_HAS_EMULATED && test::tested_device() == "emulated") fmt::print(stderr, "note: {}\n", emulator::limits());
  }
};
[[maybe_unused]] const auto* const kLimits = testing::AddGlobalTestEnvironment(new Limits);

std::filesystem::path beside_the_program(const char* file) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / file;
}

// The message and code of the error that open_backend(device) throws.
std::pair<std::string, ExitCode> refusal(std::string_view device) {
  try {
    open_backend(device, cpu::backend());
  } catch (const Error& error) {
    return {error.what(), error.code()};
  }
  ADD_FAILURE() << "--device " << device << " was accepted";
  return {};
}

TEST_F(Module, LoadsUnderItsNameAndSaysWhatItIs) {
  const ChosenBackend chosen = open_backend("emulated", cpu::backend());
  EXPECT_STREQ(chosen.backend->name, "emulated");
  EXPECT_EQ(chosen.backend->kind, DeviceKind::kCuda);
  EXPECT_EQ(chosen.backend->unusable_reason(), nullptr);
  EXPECT_EQ(chosen.reason, "emulated, as asked");
  EXPECT_EQ(emulated().name(), "emulated CUDA (correctness only)");
}

// A process's first context makes the module write one warning: the program's own count of warnings must see it.
TEST_F(Module, SharesCoresCountersWithTheProgramAndWarnsOnce) {
  const int64_t after_the_first = log::lines(log::Level::kWarning);
  EXPECT_GE(after_the_first, 1);
  const auto context = open_backend("emulated", cpu::backend()).backend->create_context(0);
  EXPECT_EQ(log::lines(log::Level::kWarning), after_the_first);
}

TEST_F(Module, ItsExceptionsAreCaughtByType) {
  try {
    const test::WithMode devices("EMULATOR_DEVICES", "2");
    open_backend("emulated", cpu::backend()).backend->create_context(7);
    FAIL() << "there is no device 7";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDevice);
    const std::string message = error.what();
    EXPECT_NE(message.find("cudaSetDevice(ordinal)"), std::string::npos) << message;
    EXPECT_NE(message.find("context.cc:"), std::string::npos) << message;
  }
}

TEST_F(Module, OutOfMemoryNamesTheBytes) {
  try {
    emulated().state().reserve(size_t{1} << 60);
    FAIL() << "an exabyte was allocated";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kMemory);
    EXPECT_NE(std::string(error.what()).find("1152921504606846976 bytes asked for"), std::string::npos) << error.what();
  }
}

TEST_F(Module, MemoryThatNobodyWroteIsNotANumber) {
  const Tensor tensor = emulated().step().allocate("fresh", DType::kF32, {3});
  std::vector<float> values(3);
  emulated().download(values.data(), tensor);
  for (const float value : values) EXPECT_NE(value, value);
}

TEST_F(Module, CopiesGoThereAndBack) {
  const test::Twin x = random(DType::kF32, {5, 3}), y = garbage(DType::kF32, {5, 3});
  emulated().copy(y.emulated, x.emulated);
  test::expect_equal("copy", downloaded(y.emulated), test::values(x.cpu));
  emulated().fill_zero(y.emulated);
  emulated().synchronize();
  test::expect_equal("zero", downloaded(y.emulated), std::vector<double>(15, 0));
}

// The emulated backend in CUDA's place: a device answers.
TEST_F(Module, AutoTakesTheDeviceThatAnswers) {
  const Backend& emulated = *open_backend("emulated", cpu::backend()).backend;
  const ChosenBackend chosen = choose_backend(&emulated, cpu::backend());
  EXPECT_EQ(chosen.backend, &emulated);
  EXPECT_EQ(chosen.reason, "cuda: its module is there and a device answers");
  EXPECT_STREQ(choose_backend(nullptr, cpu::backend()).backend->name, "cpu");
}

TEST(Device, AModuleThatCannotBeLoadedSaysWhatIsMissing) {
  const std::string name = fmt::format("broken_{}", getpid());
  const auto path = beside_the_program(fmt::format("libmhmoe_{}.so", name).c_str());
  std::ofstream(path) << "no module";
  try {
    find_backend(name, cpu::backend());
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDevice);
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("cannot load the module " + path.string() + ": ")) << message;
    EXPECT_TRUE(message.ends_with("; install what is missing, or use --device cpu")) << message;
  }
  std::filesystem::remove(path);
}

TEST_F(Module, BuiltFromOtherSourcesIsRefused) {
  const auto path = beside_the_program("libmhmoe_test_stale.so");
  try {
    find_backend("test_stale", cpu::backend());
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDevice);
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with(path.string() + " was built from other sources than this program (interface "
                                                    "0123456789abcdef, expected "))
        << message;
    EXPECT_TRUE(message.ends_with("; build both: ninja -C " + path.parent_path().string())) << message;
  }
}

TEST_F(Module, ShowsOnlyItsEntryPoint) {
  void* handle = dlopen(beside_the_program("libmhmoe_emulated.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr) << dlerror();
  EXPECT_NE(dlsym(handle, kBackendEntrySymbol), nullptr);
  for (const char* hidden : {"cudaMalloc", "cudaGetDeviceCount", "mhmoe_emulator_swap"}) {
    EXPECT_EQ(dlsym(handle, hidden), nullptr) << hidden << " could be mixed up with another module's";
  }
}

TEST(Device, UnknownNamesAreAnErrorOfUsage) {
  const auto [message, code] = refusal("nonsense");
  EXPECT_EQ(message, "--device nonsense: unknown device; allowed: auto, cpu, cuda, emulated");
  EXPECT_EQ(code, ExitCode::kUsage);
}

// Three machines: without the module, with it but without a driver or device, with both.
TEST(Device, CudaSaysWhatIsMissing) {
  const auto path = beside_the_program("libmhmoe_cuda.so");
  const ChosenBackend chosen = open_backend("auto", cpu::backend());
  const Backend* module = find_backend("cuda", cpu::backend());
  if (module != nullptr && module->unusable_reason() == nullptr) GTEST_SKIP() << "skipped: a CUDA device answers";
  EXPECT_STREQ(chosen.backend->name, "cpu");
  const auto [message, code] = refusal("cuda");
  EXPECT_EQ(code, ExitCode::kDevice);
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  if (std::filesystem::exists(path)) {
    EXPECT_TRUE(message.starts_with("--device cuda: no usable device: ")) << message;
    EXPECT_TRUE(message.ends_with("; use --device cpu")) << message;
    EXPECT_TRUE(chosen.reason.starts_with("cpu: no usable CUDA device: ")) << chosen.reason;
  } else {
    EXPECT_EQ(message, "--device cuda: no module at " + path.string() + "; build it, or use --device cpu");
    EXPECT_EQ(chosen.reason, "cpu: no CUDA module beside the program");
  }
}

}  // namespace
}  // namespace mhmoe
