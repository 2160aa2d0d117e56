#include <chrono>
#include <memory>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/output.h"
#include "cli/score_table.h"
#include "core/json.h"
#include "core/rank.h"
#include "train/config.h"
#include "train/console.h"
#include "train/trained_model.h"

namespace mhmoe::cli {
namespace {

struct EvaluateOptions {
  std::vector<std::string> models;
  std::vector<std::string> data;  // NAME=PREFIX
  std::vector<std::string> overrides;
  bool json = false;
  DeviceOptions device;
};

// --data as the override of a configuration's key, which is then checked like any other.
std::string validation_override(const std::vector<std::string>& data) {
  std::string list;
  for (const std::string& set : data) {
    const size_t equals = set.find('=');
    if (equals == std::string::npos) {
      fail(ExitCode::kUsage, "--data {}: expected NAME=PREFIX, where PREFIX.bin and PREFIX.idx are token shards", set);
    }
    list += fmt::format("{}{{\"name\": {}, \"path\": {}}}", list.empty() ? "" : ", ",
                        json::quote(set.substr(0, equals)), json::quote(set.substr(equals + 1)));
  }
  return fmt::format("data.validation=[{}]", list);
}

// A bar with the time left, on a terminal.
train::Evaluation::Progress show_progress(train::ProgressBar& bar) {
  using Clock = std::chrono::steady_clock;
  return [&bar, start = Clock::now()](int64_t done, int64_t total) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    bar.draw(done, total, seconds / static_cast<double>(done) * static_cast<double>(total - done));
  };
}

void run_evaluate(const EvaluateOptions& options) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.data.empty()) overrides.push_back(validation_override(options.data));
  // All inputs are opened before any is scored, so that a wrong one does not cost the time of the others.
  std::vector<train::TrainedModel> models;
  std::vector<train::Evaluation> evaluations;
  models.reserve(options.models.size());
  for (const std::string& path : options.models) {
    const train::TrainedModel& model = models.emplace_back(path, overrides);
    train::require_data(model.config(), false);
    evaluations.emplace_back(model.config(), model.tokenizer());
  }
  const Backend& backend = open_device(options.device);
  std::vector<ModelScores> scores;
  for (size_t i = 0; i < models.size(); ++i) {
    const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
    const std::unique_ptr<train::CausalLm> task = models[i].load(*ctx, backend);
    train::ProgressBar bar;
    auto sets = evaluations[i].run(*ctx, *task, show_progress(bar));
    bar.clear();
    scores.push_back({options.models[i], models[i].source(), models[i].step(), std::move(sets)});
  }
  write_output(options.json ? score_json(scores) : score_table(scores));
}

}  // namespace

void add_evaluate_command(CLI::App& app) {
  auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command = app.add_subcommand("evaluate", "Score trained models on their validation sets or others");
  command->footer(
      "Perplexity is given twice: as trained (experts have the training run's capacity) and dropless.\n"
      "Example: mhmoe evaluate runs/mhmoe_8\n"
      "         mhmoe evaluate runs/dense runs/smoe_8 runs/mhmoe_8 --set evaluation.tokens=100000\n"
      "         mhmoe evaluate runs/mhmoe_8/checkpoints/step-00005000 --data books=data/books --data web=data/web "
      "--json");
  command
      ->add_option("MODEL", options->models,
                   "a run's folder (its newest checkpoint), a checkpoint, or a safetensors file; one or several")
      ->required();
  command->add_option("--data", options->data, "score this set instead of the configuration's (may be repeated)")
      ->allow_extra_args(false)
      ->type_name("NAME=SHARD_PREFIX");
  command->add_flag("--json", options->json, "print one JSON object");
  add_set_option(*command, options->overrides);
  add_device_options(*command, options->device);
  command->callback([options] { run_evaluate(*options); });
}

}  // namespace mhmoe::cli
