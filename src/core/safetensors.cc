#include "core/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <set>
#include <utility>

#include "core/safetensors_header.h"

namespace mhmoe {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr size_t kAlignment = 16;  // of tensors in memory; the file promises none
constexpr size_t kLengthBytes = 8;

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // False with errno set when closing failed.
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_;
};

void read_exactly(const FileDescriptor& file, const std::string& path, void* data, size_t bytes, size_t offset) {
  auto* out = static_cast<std::byte*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pread(file.get(), out, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ExitCode::kIo, "'{}' cannot be read: {}", path, std::strerror(errno));
    if (n == 0) fail(ExitCode::kBadData, "'{}' is truncated: it ends at byte {}", path, offset);
    out += n;
    offset += static_cast<size_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

// Opens a regular file and tells its size.
int open_for_reading(const std::string& path, size_t& size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const ExitCode code = errno == ENOENT || errno == ENOTDIR ? ExitCode::kMissingInput
                          : errno == EACCES                   ? ExitCode::kPermission
                                                              : ExitCode::kIo;
    fail(code, "'{}' cannot be opened: {}", path, std::strerror(errno));
  }
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    fail(ExitCode::kBadData, "'{}' is no regular file", path);
  }
  size = static_cast<size_t>(status.st_size);
  return fd;
}

void write_all(const FileDescriptor& file, const std::string& path, const void* data, size_t bytes) {
  const auto* in = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(file.get(), in, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ExitCode::kIo, "'{}' cannot be written: {}", path, std::strerror(errno));
    in += n;
    bytes -= static_cast<size_t>(n);
  }
}

// Removed at its end unless it was renamed to its target.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& target)
      : target_(target), path_(unused_name(target)), file_(::open(path_.c_str(), kFlags, 0666)) {
    if (!file_.valid()) fail(ExitCode::kIo, "'{}' cannot be written: {}", target, std::strerror(errno));
  }
  ~TemporaryFile() {
    if (!renamed_) ::unlink(path_.c_str());
  }
  void write(const void* data, size_t bytes) { write_all(file_, target_, data, bytes); }
  // A failed fsync is never retried: the kernel may have dropped the pages.
  void commit() {
    if (::fsync(file_.get()) != 0 || !file_.close() || ::rename(path_.c_str(), target_.c_str()) != 0) {
      fail(ExitCode::kIo, "'{}' cannot be written: {}", target_, std::strerror(errno));
    }
    renamed_ = true;
    const size_t slash = target_.rfind('/');
    const std::string parent = slash == std::string::npos ? "." : target_.substr(0, slash + 1);
    const FileDescriptor folder(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid() || ::fsync(folder.get()) != 0) {
      fail(ExitCode::kIo, "the folder of '{}' cannot be synced: {}", target_, std::strerror(errno));
    }
  }

 private:
  static constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  static std::string unused_name(const std::string& target) {
    static std::atomic<int> counter{0};
    return fmt::format("{}.tmp-{}-{}", target, ::getpid(), counter++);
  }

  const std::string& target_;
  const std::string path_;
  FileDescriptor file_;
  bool renamed_ = false;
};

SafetensorsHeader layout(std::span<const NamedTensor*> tensors, const std::map<std::string, std::string>& metadata) {
  MHMOE_CHECK(tensors.size() <= SafetensorsHeader::kMaxTensors, "{} tensors are too many for a safetensors file",
              tensors.size());
  SafetensorsHeader header;
  header.metadata = metadata;
  std::set<std::string> names;
  size_t position = 0;
  for (const NamedTensor* named : tensors) {
    const auto& [name, tensor, scalar] = *named;
    MHMOE_CHECK(name != "__metadata__" && name.size() <= SafetensorsHeader::kMaxNameBytes && names.insert(name).second,
                "safetensors: the name '{}' is reserved, too long or used twice", name);
    MHMOE_CHECK(tensor.device == DeviceKind::kCpu && tensor.rank > 0, "safetensors: '{}' is absent or not on the CPU",
                name);
    MHMOE_CHECK(!scalar || tensor.count() == 1, "safetensors: scalar '{}' is {}", name, tensor.describe());
    const auto shape = tensor.shape();
    header.entries.push_back({.name = name,
                              .dtype = tensor.dtype,
                              .shape = scalar ? std::vector<int64_t>{} : std::vector(shape.begin(), shape.end()),
                              .begin = position,
                              .end = position + tensor.bytes()});
    position += tensor.bytes();
  }
  return header;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  size_t file_bytes = 0;
  const FileDescriptor file(open_for_reading(path, file_bytes));
  uint64_t header_bytes = 0;
  if (file_bytes < kLengthBytes) fail(ExitCode::kBadData, "'{}' is truncated: it has {} bytes", path, file_bytes);
  read_exactly(file, path, &header_bytes, kLengthBytes, 0);
  if (header_bytes > SafetensorsHeader::kMaxBytes) {
    fail(ExitCode::kBadData, "'{}' is no safetensors file: its header would take {} bytes, and {} are allowed", path,
         header_bytes, SafetensorsHeader::kMaxBytes);
  }
  if (header_bytes > file_bytes - kLengthBytes) {
    fail(ExitCode::kBadData, "'{}' is truncated: {} bytes, and its header alone takes {}", path, file_bytes,
         header_bytes);
  }
  std::string text(header_bytes, '\0');
  read_exactly(file, path, text.data(), text.size(), kLengthBytes);
  const size_t data_offset = kLengthBytes + header_bytes;
  SafetensorsHeader header = parse_safetensors_header(path, text, file_bytes - data_offset);
  metadata_ = std::move(header.metadata);

  const auto aligned = [](size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };
  size_t memory = 0;
  for (const auto& entry : header.entries) memory += aligned(entry.end - entry.begin);
  try {
    bytes_.resize(memory);
  } catch (const std::bad_alloc&) {
    fail(ExitCode::kMemory, "'{}': no memory for its {} bytes", path, memory);
  }
  size_t position = 0;
  for (const auto& entry : header.entries) {
    read_exactly(file, path, bytes_.data() + position, entry.end - entry.begin, data_offset + entry.begin);
    const std::vector<int64_t> shape = entry.shape.empty() ? std::vector<int64_t>{1} : entry.shape;
    tensors_.emplace(entry.name, Tensor(bytes_.data() + position, entry.dtype, shape));
    names_.push_back(entry.name);
    position += aligned(entry.end - entry.begin);
  }
}

const Tensor& SafetensorsFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail(ExitCode::kBadData, "'{}' holds no tensor '{}'", path_, name);
  return found->second;
}

std::vector<double> SafetensorsFile::doubles(const std::string& name) const {
  const Tensor& tensor = at(name);
  std::vector<double> values(static_cast<size_t>(tensor.count()));
  const auto convert = [&]<class T>(const T* in) {
    for (size_t i = 0; i < values.size(); ++i) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        values[i] = static_cast<float>(in[i]);
      } else {
        values[i] = static_cast<double>(in[i]);
      }
    }
  };
  switch (tensor.dtype) {
    case DType::kF32:
      convert(tensor.as<float>());
      break;
    case DType::kBF16:
      convert(tensor.as<bfloat16>());
      break;
    case DType::kF64:
      convert(tensor.as<double>());
      break;
    case DType::kI32:
      convert(tensor.as<int32_t>());
      break;
    case DType::kI64:
      convert(tensor.as<int64_t>());
      break;
    case DType::kU8:
      convert(tensor.as<uint8_t>());
      break;
  }
  return values;
}

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& named : tensors) order.push_back(&named);
  // Widest elements first: every tensor is then aligned for readers that map the file.
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return size_of(a->tensor.dtype) > size_of(b->tensor.dtype);
  });
  const std::string header = format_safetensors_header(layout(order, metadata));
  MHMOE_CHECK(header.size() <= SafetensorsHeader::kMaxBytes, "'{}': a header of {} bytes is too large", path,
              header.size());
  TemporaryFile file(path);
  const uint64_t length = header.size();
  file.write(&length, kLengthBytes);
  file.write(header.data(), header.size());
  for (const NamedTensor* named : order) file.write(named->tensor.data, named->tensor.bytes());
  file.commit();
}

}  // namespace mhmoe
