#include "core/safetensors.h"

#include <algorithm>
#include <bit>
#include <new>
#include <set>
#include <utility>

#include "core/safetensors_header.h"

namespace mhmoe {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr size_t kAlignment = 16;  // of tensors in memory; the file promises none
constexpr size_t kLengthBytes = 8;

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

// Pickle in a zip archive or bare: loading it runs what it says.
void refuse_pytorch(const std::string& path, uint64_t first_bytes) {
  constexpr uint64_t kZip = 0x04034b50, kPickle = 0x80;
  const bool is_pickle = (first_bytes & 0xff) == kPickle && (first_bytes >> 8 & 0xff) <= 5;
  if ((first_bytes & 0xffffffff) != kZip && !is_pickle) return;
  fail(ExitCode::kPermission,
       "'{}' is a PyTorch or pickle file, which may hold programs and is never loaded; convert it where you trust it, "
       "with safetensors.torch.save_file",
       path);
}

// The header and the length before it, as they lie in the file.
std::string read_header(const InputFile& file) {
  const std::string& path = file.path();
  const size_t file_bytes = file.size();
  uint64_t header_bytes = 0;
  if (file_bytes < kLengthBytes) fail(ExitCode::kBadData, "'{}' is truncated: it has {} bytes", path, file_bytes);
  file.read(&header_bytes, kLengthBytes, 0);
  if (header_bytes > SafetensorsHeader::kMaxBytes) {
    refuse_pytorch(path, header_bytes);
    fail(ExitCode::kBadData, "'{}' is no safetensors file: its header would take {} bytes, and {} are allowed", path,
         header_bytes, SafetensorsHeader::kMaxBytes);
  }
  if (header_bytes > file_bytes - kLengthBytes) {
    fail(ExitCode::kBadData, "'{}' is truncated: {} bytes, and its header alone takes {}", path, file_bytes,
         header_bytes);
  }
  std::string header(kLengthBytes + header_bytes, '\0');
  file.read(header.data(), header.size(), 0);
  return header;
}

[[noreturn]] void fail_absent(const std::string& path, const std::string& name) {
  fail(ExitCode::kBadData, "'{}' holds no tensor '{}'", path, name);
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::string& path, Links links)
    : file_(std::make_unique<InputFile>(path, links)), header_(read_header(*file_)) {
  const std::string_view text = header_;
  SafetensorsHeader header = parse_safetensors_header(path, text.substr(kLengthBytes), file_->size() - header_.size());
  metadata_ = std::move(header.metadata);
  for (const auto& entry : header.entries) {
    const std::vector<int64_t> shape = entry.shape.empty() ? std::vector<int64_t>{1} : entry.shape;
    const Place place = {Tensor(nullptr, entry.dtype, shape), header_.size() + entry.begin};
    places_.emplace(entry.name, place);
    names_.push_back(entry.name);
  }
}

const SafetensorsReader::Place& SafetensorsReader::place(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) fail_absent(path(), name);
  return found->second;
}

void SafetensorsReader::read(const std::string& name, void* out) const {
  Place read = place(name);
  read.tensor.data = out;
  file_->read(out, read.tensor.bytes(), read.offset);
  if (check_) check_(*this, name, read.tensor);
}

SafetensorsFile::SafetensorsFile(const SafetensorsReader& reader)
    : path_(reader.path()), names_(reader.names()), metadata_(reader.metadata()) {
  const auto aligned = [](size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };
  size_t memory = 0;
  for (const std::string& name : names_) memory += aligned(reader.at(name).bytes());
  try {
    bytes_ = std::make_unique_for_overwrite<std::byte[]>(memory);
  } catch (const std::bad_alloc&) {
    fail(ExitCode::kMemory, "'{}': no memory for its {} bytes", path_, memory);
  }
  size_t position = 0;
  for (const std::string& name : names_) {
    Tensor tensor = reader.at(name);
    tensor.data = bytes_.get() + position;
    reader.read(name, tensor.data);
    position += aligned(tensor.bytes());
    tensors_.emplace(name, tensor);
  }
}

const Tensor& SafetensorsFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail_absent(path_, name);
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

void stream_safetensors(const ByteSink& write, std::span<const NamedTensor> tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& named : tensors) order.push_back(&named);
  // Widest elements first: every tensor is then aligned for readers that map the file.
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return size_of(a->tensor.dtype) > size_of(b->tensor.dtype);
  });
  const std::string header = format_safetensors_header(layout(order, metadata));
  MHMOE_CHECK(header.size() <= SafetensorsHeader::kMaxBytes, "safetensors: a header of {} bytes is too large",
              header.size());
  const uint64_t length = header.size();
  write(&length, kLengthBytes);
  write(header.data(), header.size());
  for (const NamedTensor* named : order) write(named->tensor.data, named->tensor.bytes());
}

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  AtomicFile file(path);
  stream_safetensors([&](const void* data, size_t bytes) { file.write(data, bytes); }, tensors, metadata);
  file.commit();
}

}  // namespace mhmoe
