#include "cli/checkpoint_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/hash.h"
#include "train/config.h"

namespace mhmoe::cli {
namespace {

using Leaves = std::map<std::string, std::string>;

// "train.steps" and "100" of every value below; "data.train[0].path" in lists.
void add_leaves(Leaves& leaves, const std::string& path, const json::Value& value) {
  if (value.items.empty()) {
    leaves[path] = json::to_line(value);
    return;
  }
  for (size_t i = 0; i < value.items.size(); ++i) {
    const json::Value& item = value.items[i];
    const bool member = value.kind == json::Kind::kObject;
    add_leaves(leaves, member ? (path.empty() ? "" : path + ".") + item.key : fmt::format("{}[{}]", path, i), item);
  }
}

Leaves leaves_of(const std::string& text) {
  Leaves leaves;
  add_leaves(leaves, "", json::parse(text, "config", ExitCode::kBadData));
  return leaves;
}

// No line end or terminal escape of a stranger's file reaches the terminal.
std::string printable(const std::string& name) {
  const std::string quoted = json::quote(name);
  return quoted.substr(1, quoted.size() - 2);
}

int64_t count_of(const train::Checkpoint::TensorEntry& tensor) {
  int64_t count = 1;
  for (const int64_t dim : tensor.shape) count *= dim;
  return count;
}

std::string value_at(const Leaves& leaves, const std::string& key) {
  const auto found = leaves.find(key);
  return found == leaves.end() ? "absent" : found->second;
}

std::string config_differences(const std::string& a, const std::string& b) {
  const Leaves left = leaves_of(a), right = leaves_of(b);
  Leaves keys = left;
  keys.insert(right.begin(), right.end());
  std::string out;
  for (const auto& [key, value] : keys) {
    const std::string before = value_at(left, key), after = value_at(right, key);
    if (before != after) out += fmt::format("  {}: {} | {}\n", printable(key), before, after);
  }
  return out;
}

std::map<int64_t, std::string> checkpoints_of(const std::string& path) {
  if (train::is_checkpoint_path(path)) return {{train::Checkpoint(path).step(), path}};
  std::map<int64_t, std::string> found;
  const std::string folder = train::checkpoints_folder(path);
  for (const int64_t step : train::checkpoint_steps(folder)) found[step] = train::checkpoint_path(folder, step);
  if (found.empty()) fail(ExitCode::kMissingInput, "{}: no checkpoint there", path);
  return found;
}

std::string run_hash(const train::Checkpoint& checkpoint) {
  const json::Value* hash = checkpoint.state().find("run_hash");
  return hash == nullptr ? "" : hash->text;
}

std::string tensor_differences(const train::Checkpoint& a, const train::Checkpoint& b) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : a.tensors()) {
    const auto other = b.tensors().find(name);
    if (other == b.tensors().end() || other->second != tensor) names.push_back(name);
  }
  for (const auto& [name, tensor] : b.tensors()) {
    if (!a.tensors().contains(name)) names.push_back(name);
  }
  constexpr size_t kListed = 8;
  std::string out =
      fmt::format("{} of {} tensors differ", names.size(), std::max(a.tensors().size(), b.tensors().size()));
  for (size_t i = 0; i < std::min(names.size(), kListed); ++i) out += (i == 0 ? ": " : ", ") + printable(names[i]);
  return out + (names.size() > kListed ? ", ...\n" : "\n");
}

}  // namespace

std::string describe_checkpoint(const train::Checkpoint& checkpoint) {
  int64_t parameters = 0;
  size_t width = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (tensor.file.starts_with("model-")) parameters += count_of(tensor);
    width = std::max(width, printable(name).size());
  }
  constexpr double kMebibyte = 1 << 20;
  std::string out = fmt::format(
      "checkpoint  {}\nstep        {}\nrun         {}\nwritten by  mhmoe {}\nparameters  {}\nsize        {:.1f} MiB in "
      "{} "
      "tensors\n",
      checkpoint.path(), checkpoint.step(), printable(checkpoint.run_id()), printable(checkpoint.mhmoe_version()),
      parameters, static_cast<double>(checkpoint.bytes()) / kMebibyte, checkpoint.tensors().size());
  out += "\nconfig, where it is not the default (default | here)\n" +
         config_differences(train::resolved_config({}), checkpoint.config());
  out += "\nstate\n";
  Leaves state;
  add_leaves(state, "", checkpoint.state());
  for (const auto& [key, value] : state) out += fmt::format("  {} = {}\n", printable(key), value);
  out += "\ntensors: name, shape, XXH3-64, file\n";
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    out += fmt::format("  {:<{}}  [{}]  {}  {}\n", printable(name), width, fmt::join(tensor.shape, ", "),
                       to_hex(tensor.xxh3), tensor.file);
  }
  return out;
}

std::string compare_checkpoints(const std::string& path_a, const std::string& path_b) {
  const auto all_a = checkpoints_of(path_a), all_b = checkpoints_of(path_b);
  std::string out = "config (first | second)\n";
  const std::string differences = config_differences(train::Checkpoint(all_a.rbegin()->second).config(),
                                                     train::Checkpoint(all_b.rbegin()->second).config());
  out += differences.empty() ? "  no difference\n" : differences;
  int64_t same = -1, common = 0;
  for (const auto& [step, path] : all_a) {
    if (!all_b.contains(step)) continue;
    const train::Checkpoint a(path), b(all_b.at(step));
    ++common;
    if (run_hash(a) == run_hash(b) && a.tensors() == b.tensors()) {
      same = step;
      continue;
    }
    if (same >= 0) out += fmt::format("same up to step {}\n", same);
    out += fmt::format("different at step {}: run hash {} | {}, {}", step, printable(run_hash(a)),
                       printable(run_hash(b)), tensor_differences(a, b));
    return out;
  }
  if (common == 0) return out + "there is no step of which both have a checkpoint\n";
  return out + fmt::format("the same run up to step {}, in all {} checkpoints that both have\n", same, common);
}

}  // namespace mhmoe::cli
