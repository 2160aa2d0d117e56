// The shared memory of other compilers than clang: the thread-local variables of this module (simt.h).
#include "static_shared.h"

#include <link.h>

#include <cstdint>

namespace emulator {
namespace {

// Touched so that this thread's block exists before the loader is asked where it lies.
thread_local volatile unsigned char anchor;

struct Query {
  uintptr_t own_address;
  std::span<std::byte> found;
};

int visit(dl_phdr_info* info, size_t /*size*/, void* data) {
  auto* query = static_cast<Query*>(data);
  bool own = false;
  size_t bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD) own |= query->own_address >= begin && query->own_address < begin + segment.p_memsz;
    if (segment.p_type == PT_TLS) bytes = segment.p_memsz;
  }
  if (!own) return 0;
  query->found = {static_cast<std::byte*>(info->dlpi_tls_data), bytes};
  return 1;
}

// The block's place relative to the anchor is the same in every thread of the program.
struct Layout {
  ptrdiff_t begin_from_anchor;
  size_t bytes;
};

Layout find_layout() {
  anchor = 0;
  Query query{reinterpret_cast<uintptr_t>(&find_layout), {}};
  dl_iterate_phdr(visit, &query);
  auto* at = reinterpret_cast<std::byte*>(const_cast<unsigned char*>(&anchor));
  return {query.found.data() - at, query.found.size()};
}

}  // namespace

std::span<std::byte> static_shared_memory() {
  static const Layout layout = find_layout();
  auto* at = reinterpret_cast<std::byte*>(const_cast<unsigned char*>(&anchor));
  return {at + layout.begin_from_anchor, layout.bytes};
}

}  // namespace emulator
