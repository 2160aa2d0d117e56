// The CPU backend's kernels, compiled once for each kind of processor, and the choice among them.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "ops/kernel_table.h"

namespace mhmoe::cpu {

// Kernels for processors that have certain instruction sets. src/CMakeLists.txt says which levels there are.
struct KernelLevel {
  const char* name;
  const char* const* needs;  // the sets that the compiler was allowed, under GCC's names ("avx2"); null ends the list
  const ops::KernelTable& kernels;
};

// All that the program has, the lowest first.
std::span<const KernelLevel* const> levels();

// Whether this CPU, and the libraries that compute products on it, have the instruction set.
bool has_instructions(std::string_view set);
// One line for a person: the sets that `has` denies, and what to do; empty if there are none.
std::string missing_instructions(const KernelLevel& level, bool (*has)(std::string_view));

// "auto", the highest that this machine has (the default), or a level's name, to which oneDNN is then held as well.
// Once the backend is in use, nothing else than what was chosen can be asked for. Throws Error(kUsage) for other names,
// Error(kDevice) if the machine lacks the level. MHMOE_CPU_ISA in the environment does the same where nobody asks.
void request_level(std::string_view name);

// What was chosen; the lowest if this machine has none.
const KernelLevel& level();

// Backend::unusable_reason.
const char* unusable_reason();

}  // namespace mhmoe::cpu
