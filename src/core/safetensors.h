// The safetensors file format: named tensors with shapes, no code. Reads untrusted files.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "core/tensor.h"

namespace mhmoe {

// A file opened, and its header checked: header within 8 MiB, at most 65,536 tensors with names of at most 512 bytes,
// dtypes F32, BF16, F64, I32, I64, U8, offsets without holes or overlaps and equal to shape x dtype, rank at most 4
// (scalars have rank 0 in the file and are read as shape [1]). Tensors without elements take no bytes: they lie where
// another tensor begins or the last one ends, several at one place if need be. Anything else throws Error(kBadData)
// naming file and tensor; what cannot be opened throws as InputFile; a PyTorch file is Error(kPermission). Tensors are
// read when they are asked for.
class SafetensorsReader {
 public:
  // Sees every tensor that is read, and throws where it will not do.
  using Check = std::function<void(const SafetensorsReader& file, const std::string& name, const Tensor& tensor)>;

  explicit SafetensorsReader(const std::string& path, Links links = Links::kFollow);
  void set_check(Check check) { check_ = std::move(check); }
  const std::string& path() const { return file_->path(); }

  const std::vector<std::string>& names() const { return names_; }  // in file order
  bool contains(const std::string& name) const { return places_.contains(name); }
  // Its dtype and shape, without data; throws Error(kBadData) naming file and tensor when absent.
  const Tensor& at(const std::string& name) const { return place(name).tensor; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Into memory for all its bytes.
  void read(const std::string& name, void* out) const;

  const InputFile& file() const { return *file_; }
  // All bytes before those of tensors.
  const std::string& header() const { return header_; }
  // Where the tensor's bytes begin in the file.
  size_t offset(const std::string& name) const { return place(name).offset; }

 private:
  struct Place {
    Tensor tensor;
    size_t offset;
  };
  const Place& place(const std::string& name) const;

  std::unique_ptr<InputFile> file_;
  std::string header_;
  std::vector<std::string> names_;
  std::map<std::string, Place> places_;
  std::map<std::string, std::string> metadata_;
  Check check_;
};

// All of a file in memory.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path) : SafetensorsFile(SafetensorsReader(path)) {}
  explicit SafetensorsFile(const SafetensorsReader& reader);
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

 private:
  std::string path_;
  std::unique_ptr<std::byte[]> bytes_;
  std::vector<std::string> names_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
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
