// `mhmoe train` with a fault that the environment names (events.h).
#include <csignal>
#include <utility>
#include <variant>

#include "cli/commands.h"
#include "cli/faults/watched_job.h"
#include "core/file_system.h"
#include "core/float_environment.h"
#include "device/last_op.h"
#include "ops/op_call.h"

namespace mhmoe::test {
namespace {

// Copies and fills are no events: there are ops around them.
class WatchedWork final : public WorkObserver {
 public:
  void begin(const ops::OpCall& call) override {
    std::visit(
        [](const auto* arguments) {
          using Args = std::remove_cvref_t<decltype(*arguments)>;
          Events::of_this_process().reach("op " + std::string(type_name<Args>()));
        },
        call.arguments);
  }
  void begin_fill(const Tensor& /*dst*/) override {}
  void begin_copy(const Tensor& /*dst*/, const Tensor& /*src*/) override {}
  void end() override {}
};

class WatchedFiles final : public FileSystem {
 public:
  int create(const char* path) override {
    Events::of_this_process().reach(std::string("file create ") + path);
    return FileSystem::create(path);
  }
  int rename(const char* from, const char* to) override {
    Events::of_this_process().reach(std::string("file rename ") + to);
    return FileSystem::rename(from, to);
  }
};

const Backend* real = nullptr;

// The first is the one that trains; in another the peak speed is measured, with as many ops as there is time for.
std::unique_ptr<Context> create_context(int ordinal) {
  static WatchedWork work;
  static bool is_first = true;
  std::unique_ptr<Context> context = real->create_context(ordinal);
  if (std::exchange(is_first, false)) context->set_work_observer(&work);
  return context;
}

std::unique_ptr<Communicator> create_communicator(Context& ctx, Job& job, std::span<const int> ranks) {
  Events::of_this_process().reach("job create_communicator");
  auto inner = real->create_communicator != nullptr ? real->create_communicator(ctx, job, ranks)
                                                    : job.create_host_communicator(ranks);
  return std::make_unique<FaultyCommunicator>(
      std::move(inner), [](const std::string& call) { return Events::of_this_process().reach_collective(call); });
}

const Backend& open_device(const cli::DeviceOptions& options) {
  real = &cli::open_device(options);
  static const Backend watched = {.name = real->name,
                                  .kind = real->kind,
                                  .kernels = real->kernels,
                                  .create_context = create_context,
                                  .create_communicator = create_communicator,
                                  .unusable_reason = real->unusable_reason,
                                  .prefers_bf16 = real->prefers_bf16,
                                  .nccl_version = real->nccl_version};
  return watched;
}

Job& job() {
  Events::of_this_process().reach("job start");
  static WatchedJob watched(comm::job());
  Events::of_this_process().reach("job started");
  return watched;
}

void run(int argc, char** argv) {
  static WatchedFiles files;
  use_file_system(&files);
  CLI::App app;
  cli::add_train_command(app, {.job = job, .open_device = open_device});
  app.parse(argc, argv);
}

}  // namespace
}  // namespace mhmoe::test

int main(int argc, char** argv) {
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  mhmoe::fix_float_environment();
  try {
    mhmoe::test::run(argc, argv);
    mhmoe::comm::finish_job();
    return 0;
  } catch (...) {
    return static_cast<int>(mhmoe::comm::end_by_exception());
  }
}
