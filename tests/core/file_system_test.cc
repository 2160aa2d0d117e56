#include "core/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/append_file.h"
#include "core/faulty_file_system.h"
#include "core/file.h"

namespace mhmoe {
namespace {

namespace fs = std::filesystem;

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class FileSystemTest : public testing::Test {
 protected:
  FileSystemTest() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) / fmt::format("mhmoe-seam-{}-{}", info->name(), getpid());
    fs::create_directories(folder_);
    std::ofstream(path("x")) << "old";
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  auto files() const { return std::distance(fs::directory_iterator(folder_), {}); }

  fs::path folder_;
};

// More than the buffer holds, in pieces small and large.
std::string long_text() {
  std::string text;
  for (int i = 0; text.size() < 700'000; ++i) text += fmt::format("{} ", i);
  return text;
}

void replace(const std::string& path) {
  const std::string text = long_text();
  AtomicFile file(path);
  file.write(text.substr(0, 10));
  file.write(text.substr(10, 400'000));
  for (size_t i = 400'010; i < text.size(); i += 1000) file.write(text.substr(i, 1000));
  file.commit();
}

// The message of the error, after its exit code.
std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return fmt::format("{} {}", static_cast<int>(error.code()), error.what());
  }
  return "no error";
}

TEST_F(FileSystemTest, AtomicFilesAreWrittenByTheProtocol) {
  FaultyFileSystem recorder;
  replace(path("x"));
  EXPECT_EQ(content(path("x")), long_text());
  const std::string names = recorder.names();
  EXPECT_TRUE(names.starts_with("create write write ")) << names;
  EXPECT_TRUE(names.ends_with("write sync close rename sync_folder")) << names;
  const auto calls = recorder.calls();
  EXPECT_EQ(calls[calls.size() - 2].path, path("x"));
  EXPECT_EQ(calls.back().path, folder_.string());
  for (size_t i = 0; i + 2 < calls.size(); ++i) EXPECT_TRUE(calls[i].path.starts_with(path("x.tmp-"))) << calls[i].path;
}

TEST_F(FileSystemTest, TemporaryNamesCannotBeGuessedAndAreNeverReused) {
  FaultyFileSystem recorder;
  { AtomicFile first(path("x")), second(path("x")); }
  const auto calls = recorder.calls();
  EXPECT_NE(calls[0].path, calls[1].path);
  EXPECT_EQ(file_system().create(path("x").c_str()), -EEXIST);
  fs::create_symlink(path("nowhere"), path("link"));
  EXPECT_EQ(file_system().create(path("link").c_str()), -EEXIST);
}

TEST_F(FileSystemTest, FilesAreReadableByAllAndWritableByTheirOwner) {
  const mode_t before = umask(0002);
  replace(path("x"));
  umask(before);
  EXPECT_EQ(fs::status(path("x")).permissions(), fs::perms{0644});
}

TEST_F(FileSystemTest, ShortWritesAreContinued) {
  FaultyFileSystem faulty;
  faulty.shorten_writes(1009);
  replace(path("x"));
  EXPECT_EQ(content(path("x")), long_text());
}

TEST_F(FileSystemTest, AFailureOfAnyCallLeavesTheOldFileAndNothingElse) {
  size_t calls = 0;
  {
    FaultyFileSystem recorder;
    replace(path("y"));
    calls = recorder.calls().size();
  }
  fs::remove(path("y"));
  for (size_t i = 0; i < calls; ++i) {
    SCOPED_TRACE(i);
    FaultyFileSystem faulty;
    faulty.fail_at(i, ENOSPC);
    const std::string error = error_of([&] { replace(path("x")); });
    EXPECT_TRUE(error.starts_with("74 " + path("x") + ": cannot ")) << error;
    EXPECT_NE(error.find("No space left"), std::string::npos) << error;
    EXPECT_EQ(content(path("x")), i + 1 < calls ? "old" : long_text());
    EXPECT_EQ(files(), 1);
  }
}

TEST_F(FileSystemTest, AFailedSyncIsNotTriedAgain) {
  FaultyFileSystem faulty;
  faulty.fail_every("sync", EIO);
  AtomicFile file(path("x"));
  file.write("new");
  EXPECT_NE(error_of([&] { file.commit(); }).find("cannot sync"), std::string::npos);
  EXPECT_TRUE(error_of([&] { file.commit(); }).starts_with("70 "));
  EXPECT_EQ(faulty.names(), "create write sync close remove_file");
}

TEST_F(FileSystemTest, DyingAtAnyCallLeavesTheOldFileOrTheNewOne) {
  size_t died = 0;
  for (const bool half_way : {false, true}) {
    int code = FaultyFileSystem::kDied;
    for (size_t i = 0; code == FaultyFileSystem::kDied; ++i) {
      std::ofstream(path("x")) << "old";
      code = exit_code_in_child([&] {
        FaultyFileSystem faulty;
        half_way ? faulty.die_half_way_at(i) : faulty.die_at(i);
        replace(path("x"));
      });
      const std::string now = content(path("x"));
      EXPECT_TRUE(now == "old" || now == long_text()) << "call " << i;
      died += code == FaultyFileSystem::kDied;
    }
    EXPECT_EQ(code, 0);
    EXPECT_EQ(content(path("x")), long_text());
  }
  EXPECT_GE(died, 2 * 8u);
}

TEST_F(FileSystemTest, AppendingAddsToWhatIsThere) {
  AppendFile file(path("new/log"));
  file.write_line("one");
  {
    AppendFile again(path("new/log"));
    again.write_line("two");
  }
  file.write("\0x", 2);
  EXPECT_EQ(content(path("new/log")), std::string("one\ntwo\n\0x", 10));
  EXPECT_EQ(file.size(), 10);
  file.truncate(4);
  file.write_line("three");
  EXPECT_EQ(content(path("new/log")), "one\nthree\n");
  const std::string error = error_of([&] { file.truncate(11); });
  EXPECT_TRUE(error.starts_with("65 ")) << error;
  EXPECT_NE(error.find("10 bytes"), std::string::npos) << error;
}

TEST_F(FileSystemTest, LineThatDoesNotFitIsTakenBack) {
  FaultyFileSystem faulty;
  AppendFile file(path("log"));
  file.write_line("whole");
  faulty.shorten_writes(3);
  faulty.fail_at(faulty.calls().size() + 1, ENOSPC);  // the second write of the line
  EXPECT_TRUE(error_of([&] { file.write_line("broken"); }).starts_with("74 " + path("log") + ": cannot write"));
  EXPECT_EQ(content(path("log")), "whole\n");
}

TEST_F(FileSystemTest, OnlyRegularFilesAreAppendedTo) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  for (const std::string& name : {path("pipe"), folder_.string(), std::string("/dev/null")}) {
    EXPECT_TRUE(error_of([&] { AppendFile file(name); }).starts_with("73 " + name)) << name;
  }
}

}  // namespace
}  // namespace mhmoe
