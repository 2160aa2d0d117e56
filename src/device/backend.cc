#include "device/backend.h"

#include <dlfcn.h>

#include <filesystem>

#include "core/float_environment.h"
#include "interface_hash.h"

namespace mhmoe {
namespace {

std::filesystem::path module_path(std::string_view name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / fmt::format("libmhmoe_{}.so", name);
}

void* symbol_of(void* handle, const std::filesystem::path& path, const char* name) {
  void* symbol = dlsym(handle, name);
  if (symbol == nullptr) fail(ExitCode::kDevice, "{} is no mhmoe module: it has no symbol {}", path.string(), name);
  return symbol;
}

// Classes and tables of other headers would be taken for ours.
void check_interface(const std::filesystem::path& path, std::string_view interface) {
  if (interface == MHMOE_INTERFACE_HASH) return;
  fail(ExitCode::kDevice,
       "{} was built from other sources than this program (interface {}, expected {}); build both: ninja -C {}",
       path.string(), interface, MHMOE_INTERFACE_HASH, path.parent_path().string());
}

// Modules stay loaded until the process ends: their tables and types are referred to from everywhere.
const Backend& load_module(const std::filesystem::path& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  fix_float_environment();
  if (handle == nullptr) {
    // The loader's words name what is missing: "libcublas.so.13: cannot open shared object file: ..."
    fail(ExitCode::kDevice, "cannot load the module {}: {}; install what is missing, or use --device cpu",
         path.string(), dlerror());
  }
  check_interface(path, static_cast<const char*>(symbol_of(handle, path, kBackendInterfaceSymbol)));
  return *reinterpret_cast<BackendEntry>(symbol_of(handle, path, kBackendEntrySymbol))();
}

ChosenBackend use_cpu(const Backend& cpu, std::string reason) {
  if (const char* unusable = cpu.unusable_reason()) fail(ExitCode::kDevice, "--device cpu: {}", unusable);
  return {&cpu, std::move(reason)};
}

ChosenBackend require_module(std::string_view name, const Backend& cpu) {
  const Backend* backend = find_backend(name, cpu);
  if (backend == nullptr) {
    fail(ExitCode::kDevice, "--device {}: no module at {}; build it, or use --device cpu", name,
         module_path(name).string());
  }
  if (const char* reason = backend->unusable_reason()) {
    fail(ExitCode::kDevice, "--device {}: no usable device: {}; use --device cpu", name, reason);
  }
  return {backend, fmt::format("{}, as asked", name)};
}

}  // namespace

const Backend* find_backend(std::string_view name, const Backend& cpu) {
  if (name == "cpu") return &cpu;
  const auto path = module_path(name);
  return std::filesystem::exists(path) ? &load_module(path) : nullptr;
}

ChosenBackend open_backend(std::string_view device, const Backend& cpu) {
  if (device == "cpu") return use_cpu(cpu, "cpu, as asked");
  if (device == "cuda" || device == "emulated") return require_module(device, cpu);
  if (device != "auto") {
    fail(ExitCode::kUsage, "--device {}: unknown device; allowed: auto, cpu, cuda, emulated", device);
  }
  const Backend* cuda = nullptr;
  try {
    cuda = find_backend("cuda", cpu);
  } catch (const Error& error) {
    return use_cpu(cpu, fmt::format("cpu: {}", error.what()));
  }
  return choose_backend(cuda, cpu);
}

ChosenBackend choose_backend(const Backend* cuda, const Backend& cpu) {
  if (cuda == nullptr) return use_cpu(cpu, "cpu: no CUDA module beside the program");
  if (const char* reason = cuda->unusable_reason()) {
    return use_cpu(cpu, fmt::format("cpu: no usable CUDA device: {}", reason));
  }
  return {cuda, "cuda: its module is there and a device answers"};
}

}  // namespace mhmoe
