// A step allocates no host memory once everything has its size, but for what oneDNN does inside.
#include <gtest/gtest.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "cpu/product.h"
#include "cpu/scratch.h"
#include "data/fixtures.h"
#include "data/prefetch.h"
#include "train/allocations.h"
#include "train/fixtures.h"
#include "train/run.h"

namespace mhmoe::train {
namespace {

constexpr int64_t kWarmUp = 4, kCounted = 20;

// Of kCounted steps, each on a new batch; a spike guard has its limits from the 17th of all steps on. Scratch grows to
// the largest request, which comes late where experts have as many rows as choose them, or where a thread is handed its
// largest task late; else all is there from the beginning.
void expect_none(const RunConfig& config, DType compute, int threads, const char* what) {
  SCOPED_TRACE(fmt::format("{}, {}, {} threads", what, to_string(compute), threads));
  const ThreadCount count(threads);
  CpuTrainer run(config, compute);
  int64_t objects = 0, steps_that_grew = 0;
  for (int64_t i = 0; i < kWarmUp + kCounted; ++i) {
    const HostBatch batch = random_batch(config, static_cast<uint64_t>(i));
    const Allocations of_step = allocations_of([&] { run.trainer->step(batch); });
    if (i < kWarmUp) continue;
    if (of_step.objects > 0 && objects == 0) print_first_allocation();
    objects += of_step.objects;
    steps_that_grew += of_step.memory > 0 ? 1 : 0;
  }
  EXPECT_EQ(objects, 0);
  EXPECT_LE(steps_that_grew, threads == 1 && config.model.moe.capacity_factor ? 0 : kCounted / 2);
  EXPECT_EQ(run.trainer->state().updates, kWarmUp + kCounted) << "a refused step is not the ordinary one";
}

TEST(Allocation, CountsWhatIsAllocated) {
  std::vector<int> vector;
  EXPECT_EQ(allocations_of([&] { vector.resize(100); }).objects, 1);
  EXPECT_EQ(allocations_of([&] { vector.resize(50); }).objects, 0);
  const Allocations of_thread = allocations_of([] { std::thread([] { std::vector<int>(100); }).join(); });
  EXPECT_GE(of_thread.objects, 2) << "the thread's own and what it is started with";
}

TEST(Allocation, IsNotCountedOnAfterAnException) {
  EXPECT_THROW(allocations_of([] { throw std::bad_alloc(); }), std::bad_alloc);
  testing::internal::CaptureStderr();
  std::vector<int> vector;
  vector.resize(100);
  print_first_allocation();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Allocation, CountsScratchThatGrowsAndArenas) {
  cpu::Scratch scratch;
  EXPECT_EQ(allocations_of([&] { scratch.bytes(1000); }).memory, 1);
  EXPECT_EQ(allocations_of([&] { scratch.bytes(900); }).memory, 0);
  EXPECT_EQ(allocations_of([&] { scratch.bytes(5000); }).memory, 1);
  const auto ctx = cpu::backend().create_context(0);
  EXPECT_EQ(allocations_of([&] { ctx->state().allocate("of a test", DType::kF32, {100}); }).memory, 1);
}

// The classes of the library's C++ interface are compiled into this program: what they allocate is its own.
TEST(Allocation, OnlyWhatOneDnnAllocatesItselfIsItsOwn) {
  const std::vector<float> a(6, 1), b(6, 1);
  std::vector<float> out(4);
  const cpu::Product& product = cpu::Product::of({.m = 2, .n = 2, .k = 3, .lda = 3, .ldb = 2, .ldc = 2});
  const auto run = [&] { product.run({.out = out.data(), .a = a.data(), .b = b.data()}); };
  run();
  const Allocations of_product = allocations_of(run);
  EXPECT_EQ(of_product.objects, 0);
  EXPECT_EQ(of_product.memory, 0);
  EXPECT_GT(of_product.of_onednn, 0) << "then nothing shows that it is told apart";
  EXPECT_GT(allocations_of([] { const dnnl::engine engine(dnnl::engine::kind::cpu, 0); }).objects, 0);
}

TEST(Allocation, AStepAllocatesNothing) {
  RunConfig fixed = tiny_config();
  RunConfig dense = fixed, dropless = fixed, everything = fixed, guarded = fixed, invariant = fixed;
  dense.model.moe.every_n_layers = 0;
  dropless.model.moe.capacity_factor.reset();
  everything.model.moe.shared_expert_hidden_size = 12;
  everything.train.recompute = Recompute::kBlock;
  guarded.train.spike_guard.threshold = 100;
  invariant.parallel.width_invariant = true;
  const std::pair<const char*, const RunConfig&> modes[] = {{"capacity", fixed},      {"dense", dense},
                                                            {"dropless", dropless},   {"shared, again", everything},
                                                            {"spike_guard", guarded}, {"width_invariant", invariant}};
  for (const auto& [what, config] : modes) {
    for (const DType compute : {DType::kF32, DType::kBF16}) expect_none(config, compute, 1, what);
  }
}

// 512 tokens of 96: more than one thread's least share of every loop over elements (32 Ki).
TEST(Allocation, NorWhereThreadsShareTheWork) {
  RunConfig wide = tiny_config();
  wide.data.sequence_length = 64;
  wide.model.hidden_size = 96;
  wide.model.ffn.hidden_size = 128;
  wide.train.micro_batch_sequences = 8;
  wide.train.batch_tokens = 8 * 64;
  RunConfig dropless = wide, invariant = wide;
  dropless.model.moe.capacity_factor.reset();
  invariant.parallel.width_invariant = true;
  expect_none(wide, DType::kF32, 2, "capacity");
  expect_none(dropless, DType::kBF16, 2, "dropless");
  expect_none(invariant, DType::kF32, 2, "width_invariant");
}

// The run as a whole: start, first and last record and checkpoint take the same at any number of steps, but for the
// digits of times.
class AllocationOfRuns : public testing::Test {
 protected:
  AllocationOfRuns() {
    const auto tokenizer = data::load_tokenizer("bytes");
    for (const char* name : {"a", "b"}) data::write_counting_shard(folder_ / name, *tokenizer, 200);
  }

  int64_t allocations_of_a_run(int64_t steps) {
    RunConfig config = tiny_config();
    config.output_dir = folder_ / "runs";
    config.name = fmt::format("run-{}", steps);
    config.data.train = {{folder_ / "a", 1}, {folder_ / "b", 2}};
    config.data.tokenizer = "bytes";
    config.model.vocab_size = 0;
    config.train.steps = steps;
    config.train.spike_guard = {.threshold = 100, .window_steps = 16};  // soon full: it is saved
    config.evaluation.every_steps = config.checkpoint.every_steps = config.log.every_steps = 1000;
    config.log.routing_every_steps = 0;
    const Allocations all = allocations_of([&] { run_training(cpu::backend(), config, {}); });
    return all.objects + all.memory;
  }

  data::TemporaryFolder folder_;
};

TEST_F(AllocationOfRuns, TheLoopAroundStepsAllocatesNothingToo) {
  const ThreadCount count(1);
  allocations_of_a_run(30);  // what libraries set up once
  const int64_t start_and_end = allocations_of_a_run(40);
  EXPECT_LT(allocations_of_a_run(140), start_and_end + 50) << "in 100 steps more";
}

}  // namespace
}  // namespace mhmoe::train
