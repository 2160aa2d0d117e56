#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "core/file.h"
#include "core/file_system.h"
#include "core/hash.h"
#include "core/log.h"
#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"

namespace mhmoe::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelFile = "model-00001-of-00001.safetensors";
constexpr const char* kOptimizerFile = "optimizer-00001-of-00001.safetensors";

// A file that was not there before, on disk once finish() has returned. Its checksum is of the bytes in memory.
class NewFile {
 public:
  explicit NewFile(std::string path) : path_(std::move(path)), descriptor_(file_system().create(path_.c_str())) {
    check(descriptor_, "create");
  }
  ~NewFile() {
    if (descriptor_ >= 0) file_system().close(descriptor_);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(const void* data, size_t bytes) {
    hash_.update(data, bytes);
    check(write_whole(descriptor_, data, bytes), "write");
    bytes_ += static_cast<int64_t>(bytes);
  }

  Manifest::File finish() {
    check(file_system().sync(descriptor_), "sync");
    check(file_system().close(std::exchange(descriptor_, -1)), "close");
    return {bytes_, hash_.digest()};
  }

 private:
  void check(int result, const char* doing) const {
    if (result < 0) fail_errno(path_, doing, -result);
  }

  std::string path_;
  HashStream hash_;
  int descriptor_;
  int64_t bytes_ = 0;
};

// Created under a name that nothing has; gone again unless it was renamed.
class TemporaryFolder {
 public:
  TemporaryFolder(const std::string& folder, const std::string& run_id, int64_t step) {
    for (int number = 1;; ++number) {
      path_ = fmt::format("{}/{}.tmp-{}-{}-{}", folder, checkpoint_name(step), run_id, getpid(), number);
      const int result = file_system().make_folder(path_.c_str());
      if (result >= 0) return;
      if (result != -EEXIST) fail_errno(std::exchange(path_, {}), "create the folder", -result);
    }
  }
  ~TemporaryFolder() {
    if (!path_.empty()) remove_tree(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  void rename(const std::string& to) {
    const int result = file_system().rename(path_.c_str(), to.c_str());
    if (result < 0) fail_errno(to, "rename the finished checkpoint", -result);
    path_.clear();
  }

 private:
  std::string path_;
};

void sync_folder(const std::string& path) {
  const int result = file_system().sync_folder(path.c_str());
  if (result < 0) fail_errno(path, "sync the folder", -result);
}

void add_tensors(Manifest& manifest, const std::vector<NamedTensor>& tensors, const std::string& file) {
  for (const auto& [name, tensor, scalar] : tensors) {
    MHMOE_CHECK(tensor.dtype == DType::kF32 && !scalar, "checkpoint: '{}' is {}, and f32 tensors are stored", name,
                tensor.describe());
    const auto shape = tensor.shape();
    const bool added = manifest.tensors
                           .emplace(name, Manifest::Tensor{.file = file,
                                                           .shape = {shape.begin(), shape.end()},
                                                           .xxh3 = xxh3(tensor.data, tensor.bytes())})
                           .second;
    MHMOE_CHECK(added, "checkpoint: the name '{}' is used twice", name);
  }
}

// All but the files.
Manifest describe(const Snapshot& snapshot) {
  MHMOE_CHECK(
      !snapshot.run_id.empty() && snapshot.run_id.size() <= 64 &&
          std::ranges::all_of(snapshot.run_id, [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; }),
      "checkpoint: the run id is '{}'", snapshot.run_id);
  const json::Value config = json::parse(snapshot.config, "the snapshot's config", ExitCode::kInternal);
  Manifest manifest{.mhmoe_version = std::string(mhmoe_version()),
                    .run_id = snapshot.run_id,
                    .step = snapshot.step,
                    .config = json::to_text(config),
                    .state = snapshot.state,
                    .tensors = {},
                    .files = {}};
  add_tensors(manifest, snapshot.model, kModelFile);
  add_tensors(manifest, snapshot.optimizer, kOptimizerFile);
  return manifest;
}

// The checkpoint that is there holds what is to be saved.
bool is_saved_already(const std::string& path, const Manifest& manifest) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return false;
  try {
    const Checkpoint found(path);
    if (found.run_id() != manifest.run_id) {
      fail(ExitCode::kCannotCreate, "{}: is a checkpoint of run {}, and this is run {}; choose another output folder",
           path, found.run_id(), manifest.run_id);
    }
    found.verify();
    if (found.tensors() == manifest.tensors && found.config() == manifest.config &&
        json::to_line(found.state()) == json::to_line(manifest.state)) {
      return true;
    }
    log::info("{}: is replaced by a new checkpoint of the step", path);
  } catch (const Error& damage) {
    if (damage.code() != ExitCode::kBadData) throw;
    log::warning("a damaged checkpoint is replaced: {}", damage.what());
  }
  return false;
}

std::string size_text(double bytes) {
  constexpr double kKibibyte = 1 << 10, kMebibyte = 1 << 20;
  return bytes < kMebibyte ? fmt::format("{:.1f} KiB", bytes / kKibibyte)
                           : fmt::format("{:.1f} MiB", bytes / kMebibyte);
}

// Says before the first byte that a disk is too small. Space that others take meanwhile is found by the writes.
void require_space(const std::string& folder, const Manifest& manifest) {
  constexpr double kPerTensor = 700;  // its name, shape and checksums in header and manifest
  struct statvfs disk {};
  if (statvfs(folder.c_str(), &disk) != 0 || disk.f_blocks == 0) return;
  double bytes =
      kPerTensor * static_cast<double>(manifest.tensors.size()) + static_cast<double>(manifest.config.size());
  for (const auto& [name, tensor] : manifest.tensors) {
    double count = sizeof(float);
    for (const int64_t dim : tensor.shape) count *= static_cast<double>(dim);
    bytes += count;
  }
  const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  if (bytes <= free) return;
  fail(ExitCode::kIo,
       "{}: the checkpoint of step {} takes {} and {} are free; make room, or keep fewer "
       "(checkpoint.keep_last)",
       folder, manifest.step, size_text(bytes), size_text(free));
}

void write_files(const std::string& folder, const Snapshot& snapshot, Manifest& manifest) {
  const auto write = [&](const std::vector<NamedTensor>& tensors, const char* name) {
    NewFile file(folder + "/" + name);
    stream_safetensors([&](const void* data, size_t bytes) { file.write(data, bytes); }, tensors,
                       {{"format", "mhmoe"}, {"run_id", snapshot.run_id}, {"step", std::to_string(snapshot.step)}});
    manifest.files[name] = file.finish();
  };
  write(snapshot.model, kModelFile);
  write(snapshot.optimizer, kOptimizerFile);
  const std::string text = format_manifest(manifest);
  NewFile file(folder + "/" + kManifestFileName);
  file.write(text.data(), text.size());
  file.finish();
  sync_folder(folder);
}

// A run that went back to an earlier step must not be overtaken by what it had saved beyond.
void set_later_ones_aside(const std::string& folder, int64_t step) {
  for (const int64_t later : checkpoint_steps(folder)) {
    if (later <= step) continue;
    const std::string aside = rename_aside(folder, checkpoint_name(later), "set-aside-");
    log::warning("{}: set aside as {}, for the run went back and is now at step {}; delete it if it is not needed",
                 checkpoint_path(folder, later), aside, step);
  }
}

// What has the name already, damaged or of another way to this step, is moved out of it, and back if the new one cannot
// take its place.
void put_in_place(TemporaryFolder& temporary, const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return temporary.rename(path);
  const std::string trash = folder + "/" + rename_aside(folder, name, kTrashPrefix);
  try {
    temporary.rename(path);
  } catch (const Error&) {
    file_system().rename(trash.c_str(), path.c_str());
    throw;
  }
}

}  // namespace

std::string write_checkpoint(const std::string& folder, const Snapshot& snapshot) {
  Manifest manifest = describe(snapshot);
  const std::string path = checkpoint_path(folder, snapshot.step);
  create_parent_folder(path);
  if (!is_saved_already(path, manifest)) {
    require_space(folder, manifest);
    TemporaryFolder temporary(folder, snapshot.run_id, snapshot.step);
    write_files(temporary.path(), snapshot, manifest);
    put_in_place(temporary, folder, checkpoint_name(snapshot.step));
    set_later_ones_aside(folder, snapshot.step);
  }
  sync_folder(folder);
  write_latest(folder, checkpoint_name(snapshot.step));
  return path;
}

}  // namespace mhmoe::train
