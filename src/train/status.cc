#include "train/status.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <array>
#include <cmath>

#include "core/file.h"
#include "core/json.h"

namespace mhmoe::train {
namespace {

std::string_view to_string(RunState state) {
  switch (state) {
    case RunState::kRunning:
      return "running";
    case RunState::kFinished:
      return "finished";
    case RunState::kStopped:
      return "stopped";
    case RunState::kFailed:
      return "failed";
  }
  return "?";
}

template <class T>
json::Value or_null(const std::optional<T>& value) {
  return value ? json::Value(*value) : json::Value();
}

json::Value or_null(const std::string& text) {
  return text.empty() ? json::Value() : json::Value(text);
}

json::Value scores(const std::vector<ValidationScore>& validation) {
  json::Value out = json::Value::object();
  for (const ValidationScore& score : validation) {
    json::Value& set = out.add(score.name, json::Value::object());
    set.add("loss", score.loss);
    set.add("perplexity", score.perplexity());
    set.add("perplexity_dropless", score.perplexity_dropless());
    set.add("bits_per_byte", score.bits_per_byte);
  }
  return out;
}

}  // namespace

std::string utc_time(std::chrono::system_clock::time_point time) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(time)));
}

RunStatus status_of_this_process() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  RunStatus status;
  status.pid = getpid();
  status.host = host.data();
  status.started = utc_time(std::chrono::system_clock::now());
  return status;
}

void write_status(const std::string& path, const RunStatus& status) {
  json::Value out = json::Value::object();
  out.add("state", to_string(status.state));
  out.add("step", status.step);
  out.add("steps", status.steps);
  out.add("tokens", status.tokens);
  out.add("loss", or_null(status.loss));
  out.add("perplexity", status.loss ? json::Value(std::exp(*status.loss)) : json::Value());
  out.add("validation", scores(status.validation));
  out.add("eta_seconds", or_null(status.eta_seconds));
  out.add("tokens_per_second", or_null(status.tokens_per_second));
  out.add("exit_code", or_null(status.exit_code));
  out.add("message", or_null(status.message));
  out.add("pid", status.pid);
  out.add("host", status.host);
  out.add("started", status.started);
  out.add("updated", utc_time(std::chrono::system_clock::now()));
  out.add("checkpoint", or_null(status.checkpoint));
  AtomicFile file(path);
  file.write(json::to_text(out));
  file.commit();
}

}  // namespace mhmoe::train
