#include "train/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <utility>

#include "core/file.h"
#include "core/finite.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "train/checkpoint_folder.h"

namespace mhmoe::train {
namespace {

constexpr size_t kMaxManifestBytes = size_t{64} << 20;
constexpr int64_t kWorthThreads = int64_t{8} << 20;  // bytes, below which waking threads costs more than it saves

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

std::string metadata_of(const SafetensorsReader& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "none" : found->second;
}

// What can be told of a file that is not the manifest's.
std::string origin(const std::string& path) {
  try {
    const SafetensorsReader file(path, Links::kRefuse);
    return fmt::format("it is whole, of step {} of run {}", metadata_of(file, "step"), metadata_of(file, "run_id"));
  } catch (const Error&) {
    return "it was cut off or overwritten";
  }
}

void check_finite(const std::string& path, const std::string& name, const Tensor& tensor) {
  const auto* values = tensor.as<float>();
  for (int64_t i = 0; i < tensor.count(); ++i) {
    if (std::isfinite(values[i])) continue;
    fail(ExitCode::kBadData,
         "{}: tensor '{}' holds {} at element {}; training cannot go on from there, so take an earlier checkpoint",
         path, name, values[i], i);
  }
}

// Throws what is wrong with a tensor of a file that is not whole.
void check_tensors(const SafetensorsReader& file, bool allow_nonfinite) {
  for (const std::string& name : file.names()) {
    Tensor tensor = file.at(name);
    std::vector<float> values(static_cast<size_t>(tensor.count()));
    tensor.data = values.data();
    file.read(name, tensor.data);
    if (!allow_nonfinite) check_finite(file.path(), name, tensor);
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

SafetensorsReader Checkpoint::open_file(const std::string& name) const {
  const std::string path = path_ + "/" + name;
  SafetensorsReader file(path, Links::kRefuse);
  const std::string found_run = metadata_of(file, "run_id"), found_step = metadata_of(file, "step");
  if (found_run != run_id() || found_step != std::to_string(step())) {
    fail(ExitCode::kBadData, "{}: is of step {} of run {}, its checkpoint is of step {} of run {}", path, found_step,
         found_run, step(), run_id());
  }
  std::map<std::string, uint64_t> checksums;
  for (const auto& [tensor_name, entry] : tensors()) {
    if (entry.file != name) continue;
    const Tensor& tensor = file.at(tensor_name);
    if (tensor.dtype != DType::kF32 || !std::ranges::equal(tensor.shape(), entry.shape)) {
      fail(ExitCode::kBadData, "{}: tensor '{}' is {}, which is not what the manifest says", path, tensor_name,
           tensor.describe());
    }
    checksums.emplace(tensor_name, entry.xxh3);
  }
  if (file.names().size() != checksums.size()) {
    fail(ExitCode::kBadData, "{}: holds {} tensors, the manifest says {}", path, file.names().size(), checksums.size());
  }
  file.set_check([checksums = std::move(checksums)](const SafetensorsReader& from, const std::string& tensor_name,
                                                    const Tensor& tensor) {
    const uint64_t found = xxh3(tensor.data, tensor.bytes()), expected = checksums.at(tensor_name);
    if (found == expected) return;
    const size_t begin = from.offset(tensor_name);
    fail(ExitCode::kBadData,
         "{}: tensor '{}' is damaged: checksum {}, the manifest says {} (bytes {} to {}); take another "
         "checkpoint",
         from.path(), tensor_name, to_hex(found), to_hex(expected), begin, begin + tensor.bytes());
  });
  return file;
}

std::vector<SafetensorsReader> Checkpoint::open(const std::string& kind) const {
  std::vector<SafetensorsReader> files;
  for (const auto& [name, entry] : manifest_.files) {
    if (name.starts_with(kind + "-")) files.push_back(open_file(name));
  }
  if (files.empty()) fail(ExitCode::kBadData, "{}: has no {} files", path_, kind);
  return files;
}

std::vector<SafetensorsFile> Checkpoint::read(const std::string& kind) const {
  std::vector<SafetensorsFile> files;
  for (const SafetensorsReader& file : open(kind)) files.emplace_back(file);
  return files;
}

// In pieces that stay in a core's cache between being read and being looked at. The file's checksum vouches for all of
// it; which tensor is damaged is asked only where it does not fit. All tensors are f32 and without holes between them,
// so the pieces hold whole elements, however long the header is.
bool Checkpoint::is_whole(const SafetensorsReader& file, bool allow_nonfinite) const {
  constexpr size_t kPiece = size_t{256} << 10;
  std::vector<float> piece(kPiece / sizeof(float));
  HashStream hash;
  hash.update(file.header());
  bool finite = true;
  size_t count = 0;
  for (size_t begin = file.header().size(); begin < file.file().size(); begin += count) {
    count = std::min(kPiece, file.file().size() - begin);
    file.file().read(piece.data(), count, begin);
    hash.update(piece.data(), count);
    const auto elements = static_cast<int64_t>(count / sizeof(float));
    finite = finite && (allow_nonfinite || all_finite(Tensor(piece.data(), DType::kF32, {elements})));
  }
  return finite && hash.digest() == manifest_.files.at(name_of(file.path())).xxh3;
}

void Checkpoint::verify(bool allow_nonfinite) const {
  std::vector<SafetensorsReader> files;
  for (const auto& [name, entry] : manifest_.files) files.push_back(open_file(name));
  std::vector<uint8_t> whole(files.size());
  const auto count = static_cast<int64_t>(files.size());
  const int64_t grain = bytes() < kWorthThreads ? count : 1;
  parallel_for(count, grain, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t i = begin; i < end; ++i) whole[i] = is_whole(files[i], allow_nonfinite) ? 1 : 0;
  });
  for (size_t i = 0; i < files.size(); ++i) {
    if (whole[i] != 0) continue;
    check_tensors(files[i], allow_nonfinite);
    if (is_whole(files[i], allow_nonfinite)) {
      fail(ExitCode::kIo,
           "{}: gave other bytes when it was read again, which fit the manifest: something writes to it, or disk or "
           "memory fail; see to that first",
           files[i].path());
    }
    fail(ExitCode::kBadData, "{}: its header is damaged: the tensors are right, the file's checksum is not",
         files[i].path());
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
