// Memory of any size as what MPI's calls take.
#pragma once

#include <mpi.h>

#include <utility>

#include "comm/counts.h"
#include "comm/mpi_check.h"

namespace mhmoe::comm {

// A datatype of our own; none by default.
class DataType {
 public:
  DataType() = default;
  DataType(DataType&& other) noexcept : type_(std::exchange(other.type_, MPI_DATATYPE_NULL)) {}
  DataType& operator=(DataType&& other) noexcept {
    std::swap(type_, other.type_);
    return *this;
  }
  DataType(const DataType&) = delete;
  DataType& operator=(const DataType&) = delete;
  ~DataType() {
    if (type_ != MPI_DATATYPE_NULL) MPI_Type_free(&type_);
  }

  // So many bytes in a row, in types of at most `largest` each.
  static DataType of_bytes(int64_t bytes, int64_t largest = kLargestCount) {
    const Chunks split = chunks_of(bytes, largest);
    DataType chunk, body, rest, whole;
    check_mpi(MPI_Type_contiguous(int_count(split.chunk, "row"), MPI_BYTE, &chunk.type_), "MPI_Type_contiguous");
    check_mpi(MPI_Type_contiguous(int_count(split.chunks, "row"), chunk.type_, &body.type_), "MPI_Type_contiguous");
    check_mpi(MPI_Type_contiguous(int_count(split.rest, "row"), MPI_BYTE, &rest.type_), "MPI_Type_contiguous");
    const int lengths[] = {1, 1};
    const MPI_Aint begins[] = {0, split.chunk * split.chunks};
    const MPI_Datatype types[] = {body.type_, rest.type_};
    check_mpi(MPI_Type_create_struct(2, lengths, begins, types, &whole.type_), "MPI_Type_create_struct");
    check_mpi(MPI_Type_commit(&whole.type_), "MPI_Type_commit");
    return whole;
  }

  MPI_Datatype get() const { return type_; }
  explicit operator bool() const { return type_ != MPI_DATATYPE_NULL; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

// So many bytes, as a count of a type.
class Block {
 public:
  explicit Block(int64_t bytes, int64_t largest = kLargestCount) : bytes_(bytes) {
    if (bytes > largest) type_ = DataType::of_bytes(bytes, largest);
  }

  int count() const { return type_ ? 1 : static_cast<int>(bytes_); }
  MPI_Datatype type() const { return type_ ? type_.get() : MPI_BYTE; }
  DataType take_type() { return std::move(type_); }

 private:
  int64_t bytes_;
  DataType type_;
};

}  // namespace mhmoe::comm
