#include "core/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>
#include <cerrno>

#include "core/file.h"

namespace mhmoe::log {
namespace {

spdlog::logger& logger() {
  static auto instance = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    auto made = std::make_shared<spdlog::logger>("mhmoe", std::move(sink));
    made->set_pattern("%v");
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return *instance;
}

std::array<std::atomic<int64_t>, 3> line_counts;  // by Level
std::atomic<int> rank_of_job{0};

std::string rank_prefix() {
  return rank_of_job > 0 ? fmt::format("rank {}: ", rank_of_job.load()) : "";
}

}  // namespace

void write(Level level, std::string_view message) {
  const std::string line = one_line(message);
  ++line_counts[static_cast<size_t>(level)];
  switch (level) {
    case Level::kInfo:
      if (rank_of_job == 0) logger().info(line);
      break;
    case Level::kWarning:
      logger().warn("warning: {}{}", rank_prefix(), line);
      break;
    case Level::kError:
      logger().error("error: {}", line);
      break;
  }
}

void set_rank(int rank) {
  rank_of_job = rank;
}

int64_t lines(Level level) {
  return line_counts[static_cast<size_t>(level)];
}

void set_file(const std::string& path) {
  auto& sinks = logger().sinks();
  sinks.resize(1);
  if (path.empty()) return;
  std::shared_ptr<spdlog::sinks::basic_file_sink_mt> sink;
  try {
    sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
  } catch (const spdlog::spdlog_ex&) {
    fail_errno(path, "create", errno, ExitCode::kCannotCreate);
  }
  sink->set_pattern("%Y-%m-%d %H:%M:%S %v");
  sinks.push_back(std::move(sink));
}

}  // namespace mhmoe::log
