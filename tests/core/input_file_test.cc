// Reading files that are cut, replaced or written to meanwhile, from disks that fail.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <thread>

#include "core/faulty_file_system.h"
#include "core/file.h"

namespace {

// What the system's pread does in this program: it takes the place of the C library's.
struct Disk {
  size_t longest = SIZE_MAX;
  int interruptions = 0;  // before every success
  int error = 0;          // at every read
  int calls = 0;
};
Disk disk;

}  // namespace

extern "C" ssize_t pread(int descriptor, void* data, size_t bytes, off_t offset) {
  const int call = disk.calls++;
  if (disk.error != 0 || (disk.interruptions > 0 && call % (disk.interruptions + 1) != 0)) {
    errno = disk.error != 0 ? disk.error : EINTR;
    return -1;
  }
  return syscall(SYS_pread64, descriptor, data, std::min(bytes, disk.longest), offset);
}

namespace mhmoe {
namespace {

namespace fs = std::filesystem;

class InputFileTest : public testing::Test {
 protected:
  static constexpr size_t kBytes = 100'000;

  InputFileTest() : bytes_(kBytes) {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) / fmt::format("mhmoe-input-{}-{}", info->name(), getpid());
    fs::create_directories(folder_);
    std::iota(bytes_.begin(), bytes_.end(), char{1});
    write(path("x"), {bytes_.data(), bytes_.size()});
  }
  void TearDown() override {
    disk = {};
    fs::remove_all(folder_);
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  static void write(const std::string& path, std::string_view text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  }

  fs::path folder_;
  std::vector<char> bytes_;
};

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return fmt::format("{} {}", static_cast<int>(error.code()), error.what());
  }
  return "no error";
}

void expect_error(const std::function<void()>& work, const std::string& begin, const std::string& part) {
  const std::string error = error_of(work);
  EXPECT_TRUE(error.starts_with(begin)) << error;
  EXPECT_NE(error.find(part), std::string::npos) << error;
}

TEST_F(InputFileTest, ShortAndInterruptedReadsAreContinued) {
  const InputFile file(path("x"));
  disk = {.longest = 999, .interruptions = 2};
  std::vector<char> read(kBytes - 5);
  file.read(read.data(), read.size(), 5);
  EXPECT_TRUE(std::equal(read.begin(), read.end(), bytes_.begin() + 5));
  EXPECT_GT(disk.calls, 200);
}

TEST_F(InputFileTest, FailingDiskIsToldWithTheOffset) {
  const InputFile file(path("x"));
  disk.error = EIO;
  char byte = 0;
  expect_error([&] { file.read(&byte, 1, 77); }, "74 " + path("x") + ": cannot read 1 bytes at offset 77", "error");
  disk.error = ESTALE;
  expect_error([&] { file.read(&byte, 1, 77); }, "74 " + path("x"), "offset 77");
}

TEST_F(InputFileTest, WhatLiesBeyondTheEndIsBadData) {
  const InputFile file(path("x"));
  char two[2];
  expect_error([&] { file.read(two, 2, kBytes - 1); }, "65 " + path("x"), "ends at byte 100000");
  expect_error([&] { file.read(two, 2, SIZE_MAX); }, "65 " + path("x"), "truncated");
  EXPECT_EQ(file.read_whole(), std::string(bytes_.data(), bytes_.size()));
}

TEST_F(InputFileTest, FileThatShrinksWhileReadIsToldWithBothSizes) {
  const InputFile file(path("x"));
  fs::resize_file(path("x"), 1000);
  std::vector<char> read(kBytes);
  expect_error([&] { file.read(read.data(), kBytes, 0); }, "74 " + path("x") + ": changed while it was being read",
               "it had 100000 bytes, now 1000");
}

TEST_F(InputFileTest, EveryChangeIsNoticed) {
  const auto age = fs::last_write_time(path("x"));
  const std::vector<std::pair<std::function<void()>, const char*>> changes = {
      {[&] { fs::resize_file(path("x"), kBytes - 1); }, "it had 100000 bytes, now 99999"},
      {[&] { fs::last_write_time(path("x"), age + std::chrono::nanoseconds(1)); }, "written to"},
      {[&] { fs::remove(path("x")); }, "removed"},
      {[&] {
         write(path("y"), {bytes_.data(), kBytes});
         fs::last_write_time(path("y"), age);
         fs::rename(path("y"), path("x"));
       },
       "replaced"},
  };
  for (const auto& [change, told] : changes) {
    SCOPED_TRACE(told);
    write(path("x"), {bytes_.data(), kBytes});
    fs::last_write_time(path("x"), age);
    const InputFile input(path("x"));
    const MappedFile map(path("x"));
    input.check_unchanged();
    map.check_unchanged();
    change();
    expect_error([&] { input.check_unchanged(); }, "74 " + path("x") + ": changed while it was being read", told);
    expect_error([&] { map.check_unchanged(); }, "74 " + path("x") + ": changed while it was being read", told);
  }
}

TEST_F(InputFileTest, OnlyRegularFilesAreOpenedAndNothingWaits) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  fs::create_symlink(path("x"), path("link"));
  fs::create_symlink(path("link_in_circles"), path("link_in_circles"));
  expect_error([&] { InputFile file(folder_); }, "66 " + folder_.string(), "a folder");
  for (const std::string& name : {path("pipe"), std::string("/dev/zero")}) {
    expect_error([&] { InputFile file(name); }, "66 " + name, "not a regular file");
    expect_error([&] { InputFile file(name, Links::kRefuse); }, "77 " + name, "not a regular file");
    expect_error([&] { MappedFile file(name); }, "66 " + name, "not a regular file");
  }
  EXPECT_EQ(InputFile(path("link")).size(), kBytes);
  expect_error([&] { InputFile file(path("link"), Links::kRefuse); }, "77 " + path("link"), "symbolic link");
  expect_error([&] { InputFile file(path("link_in_circles")); }, "74 ", "cannot open");
  EXPECT_EQ(InputFile(path("x"), Links::kRefuse).size(), kBytes);
}

TEST_F(InputFileTest, PathsThatLeadNowhereAreToldInFull) {
  const std::string full = (fs::current_path() / "no_such/file").string();
  expect_error([] { InputFile file("no_such/../no_such/file"); }, "66 no_such/../no_such/file: cannot open",
               "(it is " + full + ")");
}

using MappedFileTest = InputFileTest;

TEST_F(MappedFileTest, CopiesWhatTheFileHolds) {
  const MappedFile map(path("x"));
  std::vector<char> copy(kBytes - 7);
  map.copy(copy.data(), copy.size(), 7);
  EXPECT_TRUE(std::equal(copy.begin(), copy.end(), bytes_.begin() + 7));
  map.copy(nullptr, 0, kBytes);
  expect_error([&] { map.copy(copy.data(), 8, kBytes - 7); }, "70 ", path("x"));
  write(path("empty"), "");
  MappedFile(path("empty")).copy(nullptr, 0, 0);
}

// In a child, which a signal would end without ending this program.
TEST_F(MappedFileTest, TruncationIsAnErrorAndNoSignal) {
  const int code = exit_code_in_child([&] {
    const MappedFile map(path("x"));
    std::vector<char> copy(kBytes);
    map.copy(copy.data(), kBytes, 0);
    for (const size_t left : {size_t{50'000}, size_t{0}}) {
      fs::resize_file(path("x"), left);
      const std::string error = error_of([&] { map.copy(copy.data(), kBytes, 0); });
      if (!error.starts_with("74 " + path("x"))) _exit(2);
      if (error.find(fmt::format("it had 100000 bytes, now {}", left)) == error.npos) _exit(3);
    }
    fs::resize_file(path("x"), kBytes);
    map.copy(copy.data(), kBytes, 0);  // the pages are there again
  });
  EXPECT_EQ(code, 0);
}

TEST_F(MappedFileTest, ThreadsAreCaughtEachByItself) {
  const int code = exit_code_in_child([&] {
    const MappedFile map(path("x"));
    std::vector<int> caught(4);
    std::vector<std::thread> threads;
    threads.reserve(caught.size());
    for (int& mine : caught) {
      threads.emplace_back([&] {
        std::vector<char> copy(kBytes);
        while (mine == 0) {
          if (error_of([&] { map.copy(copy.data(), kBytes, 0); }).starts_with("74 ")) mine = 1;
        }
      });
    }
    fs::resize_file(path("x"), 1000);
    for (std::thread& thread : threads) thread.join();
    if (caught != std::vector<int>(4, 1)) _exit(2);
  });
  EXPECT_EQ(code, 0);
}

// Touches a page that its file does not have, outside of any copy.
void bus_error(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY);
  const auto* map = static_cast<volatile char*>(mmap(nullptr, 1 << 20, PROT_READ, MAP_SHARED, file, 0));
  static_cast<void>(map[(1 << 20) - 1]);
}

TEST_F(MappedFileTest, OtherBusErrorsStillEndTheProcess) {
  const int code = exit_code_in_child([&] {
    char byte = 0;
    MappedFile(path("x")).copy(&byte, 1, 0);
    bus_error(path("x"));
  });
  EXPECT_TRUE(code == 128 + SIGBUS || code == 1) << code;  // 1: a sanitizer's report
}

TEST_F(MappedFileTest, HandlersInstalledBeforeStillGetTheirSignals) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process in which no file was mapped yet
  EXPECT_EXIT(
      {
        std::signal(SIGBUS, [](int) { _exit(42); });
        char byte = 0;
        MappedFile(path("x")).copy(&byte, 1, 0);
        bus_error(path("x"));
      },
      testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace mhmoe
