// The shared memory of clang's builds: a section of this module (simt.h). Its name is not a C identifier, for which the
// linker would offer its bounds, but then AddressSanitizer would leave out the guards between its variables.
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "emulator/fault.h"
#include "static_shared.h"

namespace emulator {
namespace {

struct Module {
  uintptr_t base = 0;
  std::string path;
};

int visit(dl_phdr_info* info, size_t /*size*/, void* data) {
  auto* module = static_cast<Module*>(data);
  const auto own = reinterpret_cast<uintptr_t>(&visit);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || own < begin || own >= begin + segment.p_memsz) continue;
    const bool program = info->dlpi_name == nullptr || *info->dlpi_name == '\0';
    *module = {info->dlpi_addr, program ? "/proc/self/exe" : info->dlpi_name};
    return 1;
  }
  return 0;
}

// A file's bytes, for reading.
class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) throw Fault(path + ": cannot be read for its sections");
    size_ = static_cast<size_t>(status.st_size);
    data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (data_ == MAP_FAILED) throw Fault(path + ": cannot be mapped for its sections");
  }
  ~Mapping() { munmap(data_, size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  template <class T>
  const T* at(size_t offset) const {
    return reinterpret_cast<const T*>(static_cast<const std::byte*>(data_) + offset);
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

std::span<std::byte> find_section() {
  Module module;
  dl_iterate_phdr(visit, &module);
  const Mapping file(module.path);
  const auto* header = file.at<ElfW(Ehdr)>(0);
  const auto* sections = file.at<ElfW(Shdr)>(header->e_shoff);
  const auto names = sections[header->e_shstrndx].sh_offset;
  for (int i = 0; i < header->e_shnum; ++i) {
    const auto& section = sections[i];
    if (std::strcmp(file.at<char>(names + section.sh_name), ".emulated_shared") != 0) continue;
    return {reinterpret_cast<std::byte*>(module.base + section.sh_addr), section.sh_size};
  }
  return {};  // no kernel has any
}

}  // namespace

std::span<std::byte> static_shared_memory() {
  static const std::span<std::byte> memory = find_section();
  return memory;
}

}  // namespace emulator
