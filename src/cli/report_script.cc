#include "cli/report_script.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>

#include "core/log.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

// Runs a program without a shell; its standard output is thrown away, its errors are shown unless `silent`. The exit
// status, or -1 if it did not start or was killed.
int run_program(const std::vector<std::string>& arguments, bool silent) {
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  if (silent) posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = posix_spawnp(&child, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return -1;
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Of the source tree that this program was built in. Folders of a suite's file are not searched: it may come from a
// stranger, and with it a script.
std::optional<fs::path> find_script() {
  std::error_code error;
  for (fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();; folder = folder.parent_path()) {
    const fs::path script = folder / "scripts" / "report.py";
    if (fs::is_regular_file(script, error)) return script;
    if (folder == folder.parent_path()) return std::nullopt;
  }
}

// One with matplotlib, or else any: the script then draws its page without the pictures. The first python3 on the PATH
// need not be the one that Debian's packages belong to.
std::optional<std::string> find_python() {
  for (const char* test : {"import matplotlib", ""}) {
    for (const char* python : {"python3", "/usr/bin/python3"}) {
      if (run_program({python, "-c", test}, true) == 0) return python;
    }
  }
  return std::nullopt;
}

}  // namespace

void make_report(const std::vector<std::string>& runs, const std::string& output, const std::string& title) {
  const std::optional<fs::path> script = find_script();
  std::vector<std::string> command = {"python3", script ? script->string() : "scripts/report.py"};
  command.insert(command.end(), runs.begin(), runs.end());
  command.insert(command.end(), {"--output", output});
  std::string by_hand;
  for (const std::string& word : command) by_hand += (by_hand.empty() ? "" : " ") + word;
  if (!script) return log::warning("no report: this program is not in its source tree; there: {}", by_hand);
  const std::optional<std::string> python = find_python();
  if (!python) {
    return log::warning("no report: no python3 here; then: {}", by_hand);
  }
  command[0] = *python;
  command.insert(command.end(), {"--title", title});
  const int status = run_program(command, false);
  if (status != 0) return log::warning("no report: report.py ended with {}; by hand: {}", status, by_hand);
  log::info("report: {}", (fs::path(output) / "index.html").string());
}

}  // namespace mhmoe::cli
