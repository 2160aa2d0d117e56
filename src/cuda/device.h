// Which device a process uses, and whether it can.
#pragma once

namespace mhmoe::cuda {

// Null when this rank's device answers and is one that the kernels are built for, else one clause that says why not and
// what to do. The text is good until the next call.
const char* unusable_reason();
// The device of the machine's process `rank`: the one of that number, or the only one that is visible.
int device_ordinal(int rank);
// bf16 matrix products run at full speed from compute capability 8.0.
bool prefers_bf16(int rank);

}  // namespace mhmoe::cuda
