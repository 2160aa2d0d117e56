// Before the first step all ranks compare what they were started with.
#pragma once

#include <string>
#include <vector>

#include "device/job.h"

namespace mhmoe::train {

struct Compared {
  std::string what;   // "the training text (data.train)"
  std::string value;  // a hash or a word; of several lines, the first that differs is shown
};

// Every rank of the job calls with the same list of things. Throws Error(kConfig) on all ranks that says what differs,
// and which ranks have which.
void require_agreement(Job& job, const std::vector<Compared>& compared);

// A hash of this program's file.
std::string program_hash();

}  // namespace mhmoe::train
