// MPI's error codes as exceptions.
#pragma once

#include <mpi.h>

#include <array>

#include "core/error.h"

namespace mhmoe::comm {

// call: "MPI_Wait", with what it was for.
inline void check_mpi(int code, std::string_view call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  fail(ExitCode::kPeerLost, "{} failed: {}", call, std::string_view(text.data(), static_cast<size_t>(length)));
}

}  // namespace mhmoe::comm
