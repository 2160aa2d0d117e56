// The safetensors file format: named tensors with shapes, no code. Reads untrusted files.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/tensor.h"

namespace mhmoe {

// A file read into memory and checked: header within 8 MiB, at most 65,536 tensors with names of at most 512 bytes,
// dtypes F32, BF16, F64, I32, I64, U8, offsets without holes or overlaps and equal to shape x dtype, rank at most 4
// (scalars have rank 0 in the file and are read as shape [1]). Tensors without elements take no bytes: they lie where
// another tensor begins or the last one ends, several at one place if need be. Anything else throws Error(kBadData)
// naming file and tensor; what cannot be opened throws as InputFile; a PyTorch file is Error(kPermission).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  explicit SafetensorsFile(const InputFile& file);
  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile(const SafetensorsFile&) = delete;  // its tensors point into it
  const std::string& path() const { return path_; }

  const std::vector<std::string>& names() const { return names_; }  // in file order
  bool contains(const std::string& name) const { return tensors_.contains(name); }
  // A CPU view of the file's memory; throws Error(kBadData) naming file and tensor when absent.
  const Tensor& at(const std::string& name) const;
  // The values converted to double, whatever the dtype.
  std::vector<double> doubles(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // XXH3-64 of the whole file, header and all, as it was read.
  uint64_t xxh3() const { return xxh3_; }
  // Where the tensor's bytes begin in the file.
  size_t offset(const std::string& name) const;

 private:
  std::string path_;
  std::unique_ptr<std::byte[]> bytes_;
  std::vector<std::string> names_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
  size_t data_offset_ = 0;
  uint64_t xxh3_ = 0;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;        // on the CPU
  bool scalar = false;  // of one element, written with rank 0
};

// `path` is whole or as it was before; its folder is created. Throws as AtomicFile.
// Tensors lie in the given order, those of wider elements first.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

// The same bytes, handed to `write` from first to last.
using ByteSink = std::function<void(const void* data, size_t bytes)>;
void stream_safetensors(const ByteSink& write, std::span<const NamedTensor> tensors,
                        const std::map<std::string, std::string>& metadata = {});

}  // namespace mhmoe
