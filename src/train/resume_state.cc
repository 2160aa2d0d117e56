#include "train/resume_state.h"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "core/hash.h"

namespace mhmoe::train {
namespace {

// Both ways over one list of fields: Writer and Reader are called as archive("name", field).
class Writer {
 public:
  void operator()(const char* name, const int64_t& field) { object.add(name, field); }
  // JSON has no number for what is not finite.
  void operator()(const char* name, const double& field) {
    object.add(name, std::isfinite(field) ? json::Value(field) : json::Value());
  }
  void operator()(const char* name, const std::string& field) { object.add(name, field); }
  void operator()(const char* name, const json::Value& field) { object.add(name, field); }
  // JSON's numbers cannot be relied on beyond 53 bits.
  void hash(const char* name, const uint64_t& field) { object.add(name, to_hex(field)); }
  template <class T>
  void nested(const char* name, T& field) {
    Writer writer;
    fields(writer, field);
    object.add(name, std::move(writer.object));
  }

  json::Value object = json::Value::object();
};

class Reader {
 public:
  explicit Reader(const json::Value& object) : object_(object) {}

  void operator()(const char* name, int64_t& field) {
    field = json::member(object_, name, json::Kind::kInteger).integer;
  }
  void operator()(const char* name, double& field) {
    const json::Value* found = object_.find(name);
    const bool null = found != nullptr && found->kind == json::Kind::kNull;
    field = null ? std::numeric_limits<double>::quiet_NaN() : json::member(object_, name, json::Kind::kReal).real;
  }
  void operator()(const char* name, std::string& field) {
    field = json::member(object_, name, json::Kind::kString).text;
  }
  void operator()(const char* name, json::Value& field) { field = json::member(object_, name, json::Kind::kObject); }
  void hash(const char* name, uint64_t& field) {
    const json::Value& text = json::member(object_, name, json::Kind::kString);
    const std::optional<uint64_t> value = from_hex(text.text);
    if (!value)
      fail(ExitCode::kBadData, "{}: {}: found {}, expected 16 hexadecimal digits", text.where(), name, text.text);
    field = *value;
  }
  template <class T>
  void nested(const char* name, T& field) {
    Reader reader(json::member(object_, name, json::Kind::kObject));
    fields(reader, field);
  }

 private:
  const json::Value& object_;
};

template <class A>
void fields(A& archive, MoeSummary& moe) {
  archive("balance_loss", moe.balance_loss);
  archive("load_max_over_mean", moe.load_max_over_mean);
  archive("dropped_fraction", moe.dropped_fraction);
  archive("expert_activation", moe.expert_activation);
}

template <class A>
void fields(A& archive, WindowSums& window) {
  archive("last_loss", window.last_loss);
  archive("last_gradient_norm", window.last_gradient_norm);
  archive("last_learning_rate", window.last_learning_rate);
  archive.nested("last_moe", window.last_moe);
  archive("averaged", window.averaged);
  archive("loss", window.loss);
  archive.nested("moe", window.moe);
  archive("timed_tokens", window.timed_tokens);
  archive("timed_seconds", window.timed_seconds);
}

template <class A>
void fields(A& archive, TrainerState& trainer) {
  archive("steps_done", trainer.steps_done);
  archive("updates", trainer.updates);
  archive("refused_in_a_row", trainer.refused_in_a_row);
  archive("spike_guard", trainer.spike_guard);
}

template <class A>
void fields(A& archive, ValidationScore& score) {
  archive("name", score.name);
  archive("targets", score.targets);
  archive("loss", score.loss);
  archive("loss_dropless", score.loss_dropless);
  archive("bits_per_byte", score.bits_per_byte);
}

template <class A>
void fields(A& archive, Origin& origin) {
  archive("data", origin.data);
  archive("tokenizer", origin.tokenizer);
  archive("compute", origin.compute);
}

template <class A>
void fields(A& archive, ResumeState& state) {
  archive.nested("trainer", state.trainer);
  archive.hash("run_hash", state.hash);
  archive("refused_steps", state.refused_steps);
  archive.nested("window", state.window);
  archive("training_seconds", state.training_seconds);
  archive.nested("origin", state.origin);
  archive("parent", state.parent);
  archive("device", state.device);
  archive("threads", state.threads);
}

}  // namespace

RunHash RunHash::begin(const std::string& identity) {
  return RunHash(xxh3(identity.data(), identity.size()));
}

void RunHash::add(const StepResult& result) {
  const std::array<uint64_t, 6> words = {value_,
                                         static_cast<uint64_t>(result.step),
                                         std::bit_cast<uint64_t>(result.loss),
                                         std::bit_cast<uint64_t>(result.gradient_norm),
                                         std::bit_cast<uint64_t>(result.learning_rate),
                                         static_cast<uint64_t>(result.refusal)};
  value_ = xxh3(words.data(), sizeof(words));
}

std::string branch_name(const Checkpoint& checkpoint) {
  return fmt::format("{}@{}", checkpoint.run_id(), checkpoint.step());
}

json::Value to_json(const ResumeState& state) {
  ResumeState copy = state;
  Writer writer;
  fields(writer, copy);
  json::Value& validation = writer.object.add("validation", json::Value::array());
  for (ValidationScore& score : copy.validation) {
    Writer each;
    fields(each, score);
    validation.add(std::move(each.object));
  }
  json::Value& files = writer.object.add("file_bytes", json::Value::object());
  for (const auto& [name, bytes] : state.file_bytes) files.add(name, bytes);
  return std::move(writer.object);
}

ResumeState read_resume_state(const json::Value& json) {
  ResumeState state;
  Reader reader(json);
  fields(reader, state);
  for (const json::Value& item : json::member(json, "validation", json::Kind::kArray).items) {
    Reader each(item);
    fields(each, state.validation.emplace_back());
  }
  const json::Value& files = json::member(json, "file_bytes", json::Kind::kObject);
  for (const json::Value& file : files.items) {
    state.file_bytes[file.key] = json::member(files, file.key, json::Kind::kInteger).integer;
  }
  return state;
}

}  // namespace mhmoe::train
