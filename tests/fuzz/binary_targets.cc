#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "core/safetensors.h"
#include "data/shard_format.h"
#include "data/shard_layout.h"
#include "fuzz/targets.h"

namespace mhmoe::fuzz {
namespace {

// Bytes under a path, though on no disk.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : descriptor_(memfd_create("input", MFD_CLOEXEC)) {
    require(descriptor_ >= 0 && write(descriptor_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
            "a file in memory can be made");
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

 private:
  int descriptor_;
};

std::string written(const SafetensorsFile& file) {
  std::vector<NamedTensor> tensors;
  for (const std::string& name : file.names()) tensors.push_back({name, file.at(name)});
  std::string bytes;
  stream_safetensors([&](const void* data, size_t size) { bytes.append(static_cast<const char*>(data), size); },
                     tensors, file.metadata());
  return bytes;
}

void require_equal(const SafetensorsFile& a, const SafetensorsFile& b) {
  require(a.metadata() == b.metadata() && a.names().size() == b.names().size(), "metadata and number of tensors");
  for (const std::string& name : a.names()) {
    const Tensor &x = a.at(name), &y = b.at(name);
    require(x.dtype == y.dtype && x.same_shape(y), "dtypes and shapes");
    require(x.bytes() == 0 || std::memcmp(x.data, y.data, x.bytes()) == 0, "tensors hold the same");
  }
}

}  // namespace

void safetensors(std::string_view input) {
  const MemoryFile memory(input);
  accepts([&] {
    const SafetensorsReader reader(memory.path());
    const SafetensorsFile file(reader);
    size_t bytes = 0;
    for (const std::string& name : file.names()) {
      bytes += file.at(name).bytes();
      require(
          file.at(name).bytes() == 0 ||
              input.substr(reader.offset(name))
                  .starts_with(std::string_view(static_cast<const char*>(file.at(name).data), file.at(name).bytes())),
          "a tensor is what lies at its offset");
    }
    uint64_t header = 0;
    std::memcpy(&header, input.data(), sizeof(header));
    require(sizeof(header) + header + bytes == input.size(), "every byte of the file is header or tensor");
    const std::string once = written(file);
    const MemoryFile again(once);
    const SafetensorsFile copy(again.path());
    require_equal(file, copy);
    require(written(copy) == once, "written and read, it is the same");
  });
}

void index(std::string_view input) {
  const auto size = static_cast<int64_t>(input.size());
  const auto copy = [&](void* out, size_t bytes, int64_t offset) {
    require(offset >= 0 && bytes <= 65'536 && offset <= size - static_cast<int64_t>(bytes), "reads lie in the file");
    std::memcpy(out, input.data() + offset, bytes);
  };
  accepts([&] {
    const data::ShardLayout layout = data::parse_megatron_index(copy, size, "x.idx");
    int64_t sequences = 0, tokens = 0;
    std::memcpy(&sequences, input.data() + data::shard_format::kCountAt, sizeof(sequences));
    for (int64_t i = 0; i < sequences; ++i) {
      int32_t length = 0;
      std::memcpy(&length, input.data() + data::shard_format::kHeaderBytes + i * 4, sizeof(length));
      tokens += length;
    }
    require(layout.tokens == tokens && layout.first_byte == 0, "as many tokens as all sequences have");
    require(layout.end_byte() >= 0 && layout.documents >= 0, "no count is negative");
  });
  accepts([&] {
    const auto bytes = std::as_bytes(std::span(input));
    const data::ShardLayout layout =
        data::parse_llmc_header(bytes.first(std::min<size_t>(bytes.size(), 1024)), size, "x.bin");
    require(layout.tokens >= 0 && layout.end_byte() == size, "tokens fill the file");
  });
}

}  // namespace mhmoe::fuzz
