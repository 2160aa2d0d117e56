// A trainer on the tested device whose steps are recorded work, or may not wait: every bit is that of eager work.
#include "train/trainer.h"

#include <functional>
#include <limits>

#include "cuda/emulated_test.h"
#include "train/evaluation.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

class CudaTrainer : public test::EmulatedTest {
 protected:
  // A run of one trainer: the weights after each step, the losses, and what steps were refused for.
  struct Run {
    std::vector<std::vector<float>> weights;
    std::vector<double> losses;
    std::vector<Refusal> refusals;
  };

  // before: what is done to the trainer before a step, numbered from 0.
  using Before = std::function<void(Context&, Trainer&, int step)>;

  // Of its own, with its memory reserved as a run does.
  static std::unique_ptr<Context> context_for(const RunConfig& config, DType compute) {
    const Backend& backend = test::tested_backend();
    std::unique_ptr<Context> ctx = backend.create_context(0);
    reserve_memory(*ctx, measure_memory(config, DeviceKind::kCuda, &backend.kernels, compute));
    return ctx;
  }

  static Run run(const RunConfig& config, int steps, const Before& before = {}) {
    const DType compute = compute_dtype(config.train.precision, true);
    const std::unique_ptr<Context> ctx = context_for(config, compute);
    Trainer trainer(*ctx, config, compute);
    Run run;
    for (int i = 0; i < steps; ++i) {
      if (before) before(*ctx, trainer, i);
      const StepResult result = trainer.step(random_batch(config, static_cast<uint64_t>(i)));
      run.losses.push_back(result.loss);
      run.refusals.push_back(result.refusal);
      run.weights.push_back(to_host(*ctx, trainer.task().parameters().master()));
    }
    return run;
  }

  static void expect_same(const Run& run, const Run& eager) {
    EXPECT_TRUE(run.weights == eager.weights);
    EXPECT_EQ(run.refusals, eager.refusals);
    ASSERT_EQ(run.losses.size(), eager.losses.size());
    // As bytes: a loss that is not a number equals itself too.
    EXPECT_EQ(std::memcmp(run.losses.data(), eager.losses.data(), run.losses.size() * sizeof(double)), 0);
  }

  // Eager work against recorded work that may not wait, run at once and as late as streams permit.
  static Run expect_graphs_give_the_same(RunConfig config, int steps, const Before& before = {}) {
    const Run eager = run(config, steps, before);
    config.train.cuda_graphs = true;
    config.train.forbid_host_sync = true;
    expect_same(run(config, steps, before), eager);
    const test::WithStreams late("deferred:1");
    expect_same(run(config, steps, before), eager);
    return eager;
  }
};

// Every micro-batch is another one than the recorded one, and every step has its own learning rate.
TEST_F(CudaTrainer, RecordedStepsGiveTheBitsOfEagerOnes) {
  for (const bool dropless : {false, true}) {
    for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
      SCOPED_TRACE(fmt::format("dropless {}, precision {}", dropless, static_cast<int>(precision)));
      RunConfig config = tiny_config();
      if (dropless) config.model.moe.capacity_factor.reset();
      config.train.precision = precision;
      config.train.recompute = dropless ? Recompute::kBlock : Recompute::kNone;
      const Run eager = expect_graphs_give_the_same(config, 4);
      EXPECT_NE(eager.weights[3], eager.weights[2]);
    }
  }
}

TEST_F(CudaTrainer, RecordedStepsAreRefusedAsEagerOnesAre) {
  const auto spoil = [](Context& ctx, Trainer& trainer, int step) {
    if (step != 2 && step != 4) return;
    nn::ParameterStore& parameters = trainer.task().parameters();
    std::vector<float> weights = to_host(ctx, parameters.master());
    weights[0] = step == 2 ? std::numeric_limits<float>::infinity() : 0.5F;
    ctx.upload(parameters.master(), weights.data());
  };
  const Run eager = expect_graphs_give_the_same(tiny_config(), 6, spoil);
  const std::vector<Refusal> expected = {Refusal::kNone,      Refusal::kNone, Refusal::kNotFinite,
                                         Refusal::kNotFinite, Refusal::kNone, Refusal::kNone};
  EXPECT_EQ(eager.refusals, expected);
}

// An evaluation between two steps takes step memory as it likes, more than a step had, so that its blocks are others.
TEST_F(CudaTrainer, RecordedStepsSurviveAnEvaluationAndNewBlocks) {
  const RunConfig config = tiny_config();
  expect_graphs_give_the_same(config, 5, [&](Context& ctx, Trainer& trainer, int step) {
    if (step == 2) score_batch(ctx, trainer.task(), config, random_batch(config, 99), std::nullopt, nullptr);
    if (step != 3) return;
    {
      const ArenaScope scope(ctx.step());
      ctx.fill_zero(ctx.step().allocate("more than a step has", DType::kF32, {int64_t{1} << 22}));
    }
    ctx.synchronize();
    const uint64_t generation = ctx.step().generation();
    ctx.step().merge_blocks();
    EXPECT_NE(ctx.step().generation(), generation) << "the test has nothing to see";
  });
}

// Downloads in the middle of a step, where work is only queued.
class Downloads final : public WorkObserver {
 public:
  explicit Downloads(Context& ctx) : ctx_(ctx) { ctx.set_work_observer(this); }
  ~Downloads() override { ctx_.set_work_observer(nullptr); }
  Downloads(const Downloads&) = delete;
  Downloads& operator=(const Downloads&) = delete;
  void begin(const ops::OpCall& /*call*/) override {}
  void begin_fill(const Tensor& /*dst*/) override {}
  void begin_copy(const Tensor& /*dst*/, const Tensor& src) override {
    std::vector<std::byte> host(src.bytes());
    ctx_.download(host.data(), src);
  }
  void end() override {}

 private:
  Context& ctx_;
};

TEST_F(CudaTrainer, AWaitInsideAStepIsAnErrorThatNamesTheCall) {
  RunConfig config = tiny_config();
  config.train.forbid_host_sync = true;
  const auto with_a_download = [&] {
    const std::unique_ptr<Context> ctx = context_for(config, DType::kF32);
    Trainer trainer(*ctx, config, DType::kF32);
    trainer.step(random_batch(config, 1));
    const Downloads downloads(*ctx);
    trainer.step(random_batch(config, 2));
  };
  try {
    with_a_download();
    FAIL() << "a step waited";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInternal);
    EXPECT_NE(std::string(error.what()).find("Context::download"), std::string::npos) << error.what();
  }
  config.train.forbid_host_sync = false;
  EXPECT_NO_THROW(with_a_download());
}

}  // namespace
}  // namespace mhmoe::train
