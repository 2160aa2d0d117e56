// Whether this machine has the instructions that the CPU backend's kernels are compiled for (MHMOE_CPU_ARCH).
#pragma once

#include <string>
#include <string_view>

namespace mhmoe::cpu {

// The instruction sets that -march allowed the compiler, under GCC's names ("avx2"); null ends the list.
extern const char* const kCompiledFor[];

bool has_instructions(std::string_view set);

// One line for a person: the sets that `has` denies, and what to do; empty if there are none.
std::string missing_instructions(const char* const* needed, bool (*has)(std::string_view));

// Backend::unusable_reason.
const char* unusable_reason();

}  // namespace mhmoe::cpu
