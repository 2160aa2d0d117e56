// Everything a new device must supply, and how the program finds it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "device/context.h"
#include "device/job.h"

namespace mhmoe {

struct Backend {
  const char* name;  // "cpu", "cuda", "emulated"
  DeviceKind kind;
  const ops::KernelTable& kernels;
  // ordinal: local_rank(), this process's number on its machine: the device of that number, or the only visible one.
  std::unique_ptr<Context> (*create_context)(int ordinal);
  // For tensors on its device, as Job::create_host_communicator. Null where they lie in host memory, which the job's
  // own communicators serve.
  std::unique_ptr<Communicator> (*create_communicator)(Context& ctx, Job& job, std::span<const int> ranks);
  // Null when a device answers, else why none does: "driver missing", ...
  const char* (*unusable_reason)();
  bool (*prefers_bf16)(int ordinal);
  // Of NCCL, as loaded: "2.28.9", or "none" where the module was built without. Null: the backend does not use it.
  std::string (*nccl_version)();
};

// The symbol every module exports: extern "C" const mhmoe::Backend* mhmoe_backend_entry().
using BackendEntry = const Backend* (*)();
inline constexpr const char* kBackendEntrySymbol = "mhmoe_backend_entry";
// And, looked at before that: extern "C" const char mhmoe_backend_interface[], the MHMOE_INTERFACE_HASH it was built
// with.
inline constexpr const char* kBackendInterfaceSymbol = "mhmoe_backend_interface";

struct ChosenBackend {
  const Backend* backend;
  std::string reason;  // which and why, for the log
};

// The backend "cpu", "cuda" or "emulated", also where its device does not answer, which planning does not need. Null
// where its module is not beside the program.
MHMOE_API const Backend* find_backend(std::string_view name, const Backend& cpu);

// device: "auto", "cpu", "cuda" or "emulated". Modules lie beside the executable (libmhmoe_cuda.so,
// libmhmoe_emulated.so) and are loaded only when asked for; auto is choose_backend. Throws Error(kDevice) when the
// device asked for cannot be had, Error(kUsage) for another name.
ChosenBackend MHMOE_API open_backend(std::string_view device, const Backend& cpu);

// What auto takes: CUDA if its module is there (not null) and a device answers, else `cpu`.
ChosenBackend MHMOE_API choose_backend(const Backend* cuda, const Backend& cpu);

}  // namespace mhmoe
