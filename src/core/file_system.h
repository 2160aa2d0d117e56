// The calls by which everything durable is written. One seam, so that tests can fail, record or die at any call; reads
// go straight to the system. Every function returns a value >= 0, or the negated errno.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/api.h"

namespace mhmoe {

class MHMOE_API FileSystem {
 public:
  virtual ~FileSystem();

  // A new file for writing; -EEXIST if the name is taken. Returns a descriptor.
  virtual int create(const char* path);
  // A file for writing at its end, created if absent. Returns a descriptor.
  virtual int open_append(const char* path);
  // Bytes written, which may be fewer than asked for.
  virtual int64_t write(int descriptor, const void* data, size_t bytes);
  virtual int truncate(int descriptor, int64_t bytes);
  virtual int sync(int descriptor);
  virtual int close(int descriptor);
  // Replaces `to` if that is a file; a folder must not be there yet.
  virtual int rename(const char* from, const char* to);
  virtual int remove_file(const char* path);
  virtual int remove_folder(const char* path);  // empty
  virtual int make_folder(const char* path);    // -EEXIST if the name is taken
  // Makes renames within the folder durable. Folders that cannot be synced, by their file system or for want of read
  // permission, give 0.
  virtual int sync_folder(const char* path);
};

// The one in use: the system's, unless a test has put in another.
MHMOE_API FileSystem& file_system();
// For tests: null restores the system's. Not while another thread writes.
MHMOE_API void use_file_system(FileSystem* replacement);

// All bytes, by as many calls of file_system().write as that takes. Returns 0 or the negated errno; some of the bytes
// may then have been written.
MHMOE_API int write_whole(int descriptor, const void* data, size_t bytes);

}  // namespace mhmoe
