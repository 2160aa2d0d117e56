// The one way to start a kernel (kernels/launch.h).
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using Values = std::array<float, 128>;
using Launch = test::EmulatorOnlyTest;

TEST_F(Launch, ABlockMayAskForAsMuchSharedMemoryAsTheDeviceHas) {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libmhmoe_test_kernels.so";
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr) << dlerror();
  const auto run = reinterpret_cast<void (*)(size_t, float*, const float*)>(dlsym(handle, "mhmoe_test_large_shared"));
  Values in{}, expected{};
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  std::reverse_copy(in.begin(), in.end(), expected.begin());
  for (const size_t bytes : {size_t{48} << 10, size_t{100} << 10, size_t{163} << 10}) {
    Values out{};
    run(bytes, out.data(), in.data());
    EXPECT_EQ(out, expected) << bytes;
  }
  const auto refusal = [&](size_t bytes) -> std::string {
    Values out{};
    try {
      run(bytes, out.data(), in.data());
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(
      refusal(size_t{164} << 10),
      "CUDA: a kernel needs 167936 bytes of shared memory a block, device 0 has 166912; use a GPU that has as much, "
      "or --device cpu");
  EXPECT_NE(refusal(size_t{228} << 10).find("a kernel wants 233472 bytes of shared memory a block, allowed: 232448"),
            std::string::npos);
}

}  // namespace
}  // namespace mhmoe
