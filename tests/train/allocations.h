// What this program allocates while it does something: for tests that nothing is.
#pragma once

#include <cstdint>
#include <functional>

namespace mhmoe::train {

struct Allocations {
  int64_t objects = 0;    // by operator new
  int64_t memory = 0;     // by malloc and its kin, called by our own code: arenas, scratch of threads
  int64_t of_onednn = 0;  // by operator new, called from within oneDNN
};

// On all threads.
Allocations allocations_of(const std::function<void()>& work);
// On standard error: where the first of the last count's was made, oneDNN's left out.
void print_first_allocation();

}  // namespace mhmoe::train
