#include "cli/common_options.h"

#include <filesystem>

#include "comm/job.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "cpu/backend.h"
#include "cpu/levels.h"
#include "data/tokenizer.h"
#include "train/config.h"

namespace mhmoe::cli {

CLI::Option* add_set_option(CLI::App& command, std::vector<std::string>& overrides) {
  return command.add_option("--set", overrides, "change a key: train.steps=100 (may be repeated)")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
}

void add_device_options(CLI::App& command, DeviceOptions& options) {
  command
      .add_option("--device", options.device,
                  "auto (a GPU if one answers, else the CPU), cpu, cuda, or emulated (CUDA on the CPU, for tests)")
      ->capture_default_str();
  command.add_option("--threads", options.threads, "CPU threads; by default all")->check(CLI::Range(1, 4096));
  command.add_option(
      "--cpu-isa", options.cpu_isa,
      "kernels for CPUs to take: auto (the best that this one has), or a lower level, as --version lists "
      "them (MHMOE_CPU_ISA)");
}

const Backend& open_device(const DeviceOptions& options) {
  if (options.threads > 0) set_thread_count(options.threads);
  if (!options.cpu_isa.empty()) cpu::request_level(options.cpu_isa);
  const ChosenBackend chosen = open_backend(options.device, cpu::backend());
  log::info("device: {}", chosen.reason);
  return *chosen.backend;
}

const Backend& open_to_measure(const DeviceOptions& options) {
  const Backend& backend = open_device(options);
  if (std::string_view(backend.name) == "emulated") {
    log::warning("device emulated: its numbers are about correctness, never about speed");
  }
  return backend;
}

train::RunConfig load_with_vocabulary(const std::string& file, const std::vector<std::string>& overrides) {
  train::RunConfig config = train::load_config(file, overrides);
  if (config.model.vocab_size > 0) return config;
  const std::string& tokenizer = config.data.tokenizer;
  std::error_code unknown;  // then loading it tells why
  if (tokenizer != "bytes" && !std::filesystem::exists(tokenizer, unknown) && !unknown) {
    fail(ExitCode::kMissingInput,
         "{}: model.vocab_size is null and the tokenizer \"{}\" does not exist; name a size: --set "
         "model.vocab_size=32000",
         file, tokenizer);
  }
  config.model.vocab_size = data::load_tokenizer(tokenizer)->vocab_size();
  return config;
}

train::RunConfig load_for_job(Job& job, const std::string& file, const std::vector<std::string>& overrides) {
  train::RunConfig config;
  comm::agree_after(job, [&] { config = load_with_vocabulary(file, overrides); });
  comm::configure_job({.ranks_per_node = static_cast<int>(config.parallel.ranks_per_node),
                       .timeout_seconds = static_cast<double>(config.parallel.timeout_seconds)});
  return config;
}

}  // namespace mhmoe::cli
