#include "train/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cmath>

#include "core/file.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "core/safetensors_header.h"
#include "train/checkpoint_folder.h"

namespace mhmoe::train {
namespace {

constexpr size_t kMaxManifestBytes = size_t{64} << 20;

struct stat status_of(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) fail_errno(path, "open", errno);
  return status;
}

// A checkpoint is of plain files that nothing else names: a link could lead anywhere, or be changed from elsewhere.
void require_plain_file(const std::string& path, const struct stat& status) {
  if (S_ISREG(status.st_mode) && status.st_nlink == 1) return;
  fail(ExitCode::kPermission, "{}: is a {}; a checkpoint is made of plain files, so copy them", path,
       S_ISLNK(status.st_mode)   ? "symbolic link"
       : S_ISREG(status.st_mode) ? "file with several names (hard links)"
       : S_ISDIR(status.st_mode) ? "folder"
                                 : "special file");
}

std::string read_manifest(const std::string& path) {
  const InputFile file(path, Links::kRefuse);
  if (file.size() > kMaxManifestBytes) {
    fail(ExitCode::kBadData, "{}: has {} bytes, a manifest has at most {}", path, file.size(), kMaxManifestBytes);
  }
  return file.read_whole();
}

std::string metadata_of(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "none" : found->second;
}

// What can be told of a file that is not the manifest's.
std::string origin(const std::string& path) {
  try {
    const SafetensorsFile file(InputFile(path, Links::kRefuse));
    return fmt::format("it is whole, of step {} of run {}", metadata_of(file, "step"), metadata_of(file, "run_id"));
  } catch (const Error&) {
    return "it was cut off or overwritten";
  }
}

// Without branches, so that it is as fast as memory: resuming looks at every number that training will need.
bool all_finite(const float* values, int64_t count) {
  constexpr uint32_t kExponent = 0x7f800000;
  constexpr int64_t kGrain = int64_t{1} << 16;
  std::atomic<bool> finite = true;
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = begin; i < end; ++i) bad |= (std::bit_cast<uint32_t>(values[i]) & kExponent) == kExponent ? 1 : 0;
    if (bad != 0) finite = false;
  });
  return finite;
}

void check_finite(const std::string& path, const std::string& name, const Tensor& tensor) {
  const auto* values = tensor.as<float>();
  const int64_t count = tensor.count();
  if (all_finite(values, count)) return;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(values[i])) continue;
    fail(ExitCode::kBadData,
         "{}: tensor '{}' holds {} at element {}; training cannot go on from there, so take an earlier checkpoint",
         path, name, values[i], i);
  }
}

}  // namespace

Checkpoint::Checkpoint(const std::string& path) : path_(path) {
  const struct stat status = status_of(path);
  if (!S_ISDIR(status.st_mode)) {
    fail(S_ISLNK(status.st_mode) ? ExitCode::kPermission : ExitCode::kMissingInput,
         "{}: is not the folder of a checkpoint", path);
  }
  const std::string manifest_path = path + "/" + kManifestFileName;
  if (access(manifest_path.c_str(), F_OK) != 0 && errno == ENOENT) {
    fail(ExitCode::kBadData, "{}: is not a complete checkpoint: it has no {}", path, kManifestFileName);
  }
  require_plain_file(manifest_path, status_of(manifest_path));
  manifest_ = parse_manifest(manifest_path, read_manifest(manifest_path));
  check_folder();
}

// Exactly the files of the manifest, of the right sizes, and a folder's name that does not say another step.
void Checkpoint::check_folder() const {
  const std::optional<int64_t> named = step_of(name_of(path_));
  if (named && *named != step()) {
    fail(ExitCode::kBadData, "{}: its manifest is of step {} of run {}", path_, step(), run_id());
  }
  const std::vector<std::string> names = list_folder(path_);
  for (const std::string& found : names) {
    const std::string file = path_ + "/" + found;
    const struct stat status = status_of(file);
    require_plain_file(file, status);
    if (found == kManifestFileName) continue;
    const auto entry = manifest_.files.find(found);
    if (entry == manifest_.files.end()) {
      fail(ExitCode::kBadData, "{}: is not part of the checkpoint (step {} of run {}); take it out", file, step(),
           run_id());
    }
    if (status.st_size != entry->second.bytes) {
      fail(ExitCode::kBadData, "{}: has {} bytes, the manifest says {}: {}", file, status.st_size, entry->second.bytes,
           origin(file));
    }
  }
  for (const auto& [file, entry] : manifest_.files) {
    if (std::ranges::find(names, file) == names.end()) {
      fail(ExitCode::kBadData, "{}/{}: is missing (step {} of run {})", path_, file, step(), run_id());
    }
  }
}

int64_t Checkpoint::bytes() const {
  int64_t sum = 0;
  for (const auto& [name, file] : manifest_.files) sum += file.bytes;
  return sum;
}

SafetensorsFile Checkpoint::read_file(const std::string& name, bool allow_nonfinite) const {
  const std::string path = path_ + "/" + name;
  SafetensorsFile file(InputFile(path, Links::kRefuse));
  const std::string found_run = metadata_of(file, "run_id"), found_step = metadata_of(file, "step");
  if (found_run != run_id() || found_step != std::to_string(step())) {
    fail(ExitCode::kBadData, "{}: is of step {} of run {}, its checkpoint is of step {} of run {}", path, found_step,
         found_run, step(), run_id());
  }
  size_t expected = 0;
  for (const auto& [tensor_name, entry] : tensors()) {
    if (entry.file != name) continue;
    ++expected;
    const Tensor& tensor = file.at(tensor_name);
    if (tensor.dtype != DType::kF32 || !std::ranges::equal(tensor.shape(), entry.shape)) {
      fail(ExitCode::kBadData, "{}: tensor '{}' is {}, which is not what the manifest says", path, tensor_name,
           tensor.describe());
    }
    const uint64_t found = xxh3(tensor.data, tensor.bytes());
    if (found != entry.xxh3) {
      const size_t begin = file.offset(tensor_name);
      fail(ExitCode::kBadData,
           "{}: tensor '{}' is damaged: checksum {}, the manifest says {} (bytes {} to {}); take another "
           "checkpoint",
           path, tensor_name, to_hex(found), to_hex(entry.xxh3), begin, begin + tensor.bytes());
    }
    if (!allow_nonfinite) check_finite(path, tensor_name, tensor);
  }
  if (file.names().size() != expected) {
    fail(ExitCode::kBadData, "{}: holds {} tensors, the manifest says {}", path, file.names().size(), expected);
  }
  if (file.xxh3() != manifest_.files.at(name).xxh3) {
    fail(ExitCode::kBadData, "{}: its header is damaged: the tensors are right, the file's checksum is not", path);
  }
  return file;
}

std::vector<SafetensorsFile> Checkpoint::read(const std::string& kind, bool allow_nonfinite) const {
  std::vector<SafetensorsFile> files;
  for (const auto& [name, entry] : manifest_.files) {
    if (name.starts_with(kind + "-")) files.push_back(read_file(name, allow_nonfinite));
  }
  if (files.empty()) fail(ExitCode::kBadData, "{}: has no {} files", path_, kind);
  return files;
}

// As a stream, since no tensor is wanted yet: the file's checksum vouches for names, shapes and run as well. What is
// wrong with a file is found out with all of it in memory.
bool Checkpoint::is_whole(const std::string& name, bool allow_nonfinite) const {
  constexpr size_t kPiece = size_t{4} << 20;
  const InputFile file(path_ + "/" + name, Links::kRefuse);
  uint64_t header_bytes = 0;
  if (file.size() < sizeof(header_bytes)) return false;
  file.read(&header_bytes, sizeof(header_bytes), 0);
  if (header_bytes % sizeof(float) != 0 || header_bytes > file.size() - sizeof(header_bytes) ||
      header_bytes > SafetensorsHeader::kMaxBytes) {
    return false;
  }
  const size_t header = sizeof(header_bytes) + header_bytes;
  std::vector<float> piece(std::max(kPiece, header) / sizeof(float));
  HashStream hash;
  for (size_t begin = 0, count = header; begin < file.size(); begin += count, count = kPiece) {
    count = std::min(count, file.size() - begin);
    file.read(piece.data(), count, begin);
    hash.update(piece.data(), count);
    if (allow_nonfinite || begin == 0) continue;
    if (!all_finite(piece.data(), static_cast<int64_t>(count / sizeof(float)))) return false;
  }
  return hash.digest() == manifest_.files.at(name).xxh3;
}

void Checkpoint::verify(bool allow_nonfinite) const {
  for (const auto& [name, entry] : manifest_.files) {
    if (!is_whole(name, allow_nonfinite)) read_file(name, allow_nonfinite);
  }
}

std::optional<Checkpoint> newest_checkpoint(const std::string& folder, bool allow_nonfinite) {
  std::optional<Error> newest_error;
  const std::vector<int64_t> steps = checkpoint_steps(folder);
  for (size_t i = steps.size(); i-- > 0;) {
    try {
      Checkpoint checkpoint(checkpoint_path(folder, steps[i]));
      checkpoint.verify(allow_nonfinite);
      return checkpoint;
    } catch (const Error& error) {
      if (error.code() == ExitCode::kMemory) throw;
      log::warning("checkpoint of step {} is passed over: {}", steps[i], error.what());
      if (!newest_error) newest_error = error;
    }
  }
  if (newest_error) {
    fail(newest_error->code(), "{}: none of its {} checkpoints is good; the newest: {}", folder, steps.size(),
         newest_error->what());
  }
  return std::nullopt;
}

Checkpoint find_checkpoint(const std::string& path, bool allow_nonfinite) {
  if (is_checkpoint_path(path)) {
    Checkpoint checkpoint(path);
    checkpoint.verify(allow_nonfinite);
    return checkpoint;
  }
  auto newest = newest_checkpoint(checkpoints_folder(path), allow_nonfinite);
  if (newest) return std::move(*newest);
  fail(ExitCode::kMissingInput, "{}: no checkpoint there; expected a checkpoint, or a run's folder that has one", path);
}

}  // namespace mhmoe::train
