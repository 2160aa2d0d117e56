// What is fuzzed: each function reads hostile bytes with one of the program's readers and throws std::logic_error where
// the reader breaks a promise. That a reader refuses its input is no fault. libFuzzer finds the inputs (CONTRIBUTING,
// "Test"); replay_test.cc repeats those kept in corpus/.
#pragma once

#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "core/error.h"

namespace mhmoe::fuzz {

using Target = void(std::string_view input);

Target config;       // configuration files: what is accepted is written back to the same
Target safetensors;  // safetensors files: what is accepted, written again, holds the same
Target index;        // .idx files of token shards: what is accepted adds up
Target sidecar;      // .json files of token shards: what is accepted is written back to the same
Target manifest;     // manifest.json of checkpoints: the same

struct Named {
  const char* name;  // also of the folder in corpus/
  Target* run;
};
inline constexpr Named kTargets[] = {
    {"config", config}, {"safetensors", safetensors}, {"index", index}, {"sidecar", sidecar}, {"manifest", manifest}};

inline void require(bool holds, std::string_view what) {
  if (!holds) throw std::logic_error(std::string(what));
}

// False if `read` refused its input, as it should: by an Error of one line.
template <class Read>
bool accepts(Read&& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    const std::string_view message = error.what();
    require(error.code() != ExitCode::kInternal, message);
    require(!message.empty() && message.find('\n') == message.npos, "the message is one line");
    return false;
  }
}

}  // namespace mhmoe::fuzz
