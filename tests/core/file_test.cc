#include "core/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>

#include "core/json.h"
#include "core/log.h"
#include "core/safetensors.h"

namespace mhmoe {
namespace {

namespace fs = std::filesystem;

// Permissions do not bind root: takes an ordinary user's place for a while.
class OrdinaryUser {
 public:
  OrdinaryUser() { changed_ = geteuid() == 0 && seteuid(65534) == 0; }
  ~OrdinaryUser() {
    if (changed_ && seteuid(0) != 0) std::abort();
  }

 private:
  bool changed_;
};

class FileTest : public testing::Test {
 protected:
  FileTest() : folder_(fs::path(testing::TempDir()) / fmt::format("mhmoe-file-{}", getpid())) {
    fs::create_directories(folder_ / "locked");
    std::ofstream(path("plain")) << "plain";
    std::ofstream(path("secret")) << "secret";
    fs::permissions(folder_ / "secret", fs::perms::none);
    fs::permissions(folder_ / "locked", fs::perms::none);
  }
  ~FileTest() override {
    log::set_file("");
    fs::permissions(folder_ / "locked", fs::perms::owner_all);
    fs::remove_all(folder_);
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  fs::path folder_;
};

// One line that names the path.
ExitCode code_of(const std::function<void(const std::string&)>& use, const std::string& path) {
  try {
    use(path);
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find(path), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return error.code();
  }
  return ExitCode::kOk;
}

TEST_F(FileTest, EveryReaderHasTheSameExitCodes) {
  const OrdinaryUser user;
  const std::vector<std::function<void(const std::string&)>> readers = {
      [](const std::string& p) { InputFile file(p); },
      [](const std::string& p) { MappedFile file(p); },
      [](const std::string& p) { SafetensorsFile file(p); },
      [](const std::string& p) { json::read_file(p, ExitCode::kConfig); },
  };
  for (size_t i = 0; i < readers.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(code_of(readers[i], path("absent")), ExitCode::kMissingInput);
    EXPECT_EQ(code_of(readers[i], path("plain/below")), ExitCode::kMissingInput);
    EXPECT_EQ(code_of(readers[i], folder_.string()), ExitCode::kMissingInput);
    EXPECT_EQ(code_of(readers[i], path("secret")), ExitCode::kPermission);
    EXPECT_EQ(code_of(readers[i], path("locked/x")), ExitCode::kPermission);
  }
}

TEST_F(FileTest, EveryWriterHasTheSameExitCodes) {
  const OrdinaryUser user;
  const std::vector<std::function<void(const std::string&)>> writers = {
      [](const std::string& p) { AtomicFile file(p); },
      [](const std::string& p) { write_safetensors(p, {}); },
      [](const std::string& p) { log::set_file(p); },
  };
  for (size_t i = 0; i < writers.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(code_of(writers[i], path("locked/x")), ExitCode::kPermission);
  }
  EXPECT_EQ(code_of(writers[0], "/proc/self/x"), ExitCode::kCannotCreate);
  EXPECT_EQ(code_of(writers[2], folder_.string()), ExitCode::kCannotCreate);
}

TEST_F(FileTest, AFullDiskIsAnIoError) {
  EXPECT_EQ(code_of([](const std::string& p) { fail_errno(p, "create", ENOSPC, ExitCode::kCannotCreate); }, "x"),
            ExitCode::kIo);
}

TEST_F(FileTest, FoldersOfAnAtomicFileAreCreatedAndNothingElseIsLeft) {
  {
    AtomicFile file(path("new/deep/abandoned"));
    file.write("half");
  }
  EXPECT_TRUE(fs::is_empty(folder_ / "new/deep"));
  AtomicFile file(path("new/deep/x"));
  file.write("whole");
  EXPECT_FALSE(fs::exists(folder_ / "new/deep/x"));
  file.commit();
  EXPECT_EQ(fs::file_size(folder_ / "new/deep/x"), 5u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "new/deep"), {}), 1);
}

}  // namespace
}  // namespace mhmoe
