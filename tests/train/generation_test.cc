// Decoding with kept keys and values against reading everything again, and what is done with it.
#include "train/generation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "ops/matmul.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

struct Variant {
  const char* name;
  nn::ModelConfig config;
};

std::vector<Variant> variants() {
  nn::ModelConfig base;
  base.vocab_size = 61;
  base.layers = 3;
  base.hidden_size = 48;
  base.attention_heads = 3;
  base.ffn.hidden_size = 40;
  base.moe.every_n_layers = 1;
  base.moe.experts = 5;
  base.moe.expert_hidden_size = 20;
  base.moe.capacity_factor = 0.5;  // generation ignores it
  std::vector<Variant> all;
  const auto add = [&](const char* name, auto change) {
    all.push_back({name, base});
    change(all.back().config);
  };
  add("dense", [](nn::ModelConfig& c) { c.moe.every_n_layers = 0; });
  add("dense, untied, biases", [](nn::ModelConfig& c) {
    c.moe.every_n_layers = 0;
    c.tie_embeddings = false;
    c.attention_bias = c.ffn.bias = true;
  });
  add("smoe", [](nn::ModelConfig&) {});
  add("smoe, top 2, every second layer", [](nn::ModelConfig& c) {
    c.moe.top_k = 2;
    c.moe.every_n_layers = 2;
    c.moe.router.normalize_top_k = true;
  });
  add("mh-moe, h = 2", [](nn::ModelConfig& c) { c.moe.heads = c.moe.top_k = 2; });
  add("mh-moe, h = 3, shared expert, inner residual", [](nn::ModelConfig& c) {
    c.moe.heads = c.moe.top_k = 3;
    c.moe.shared_expert_hidden_size = 24;
    c.moe.residual = nn::MoeResidual::kInner;
  });
  return all;
}

// A model with random weights on the CPU, and decoders of it.
struct Model {
  explicit Model(const nn::ModelConfig& model_config, DType compute = DType::kF32)
      : config(model_config), ctx(cpu::backend().create_context(0)), task(config, false) {
    task.parameters().allocate(*ctx, compute, false);
    task.parameters().initialize(*ctx, 5);
  }
  Decoder decoder(int64_t capacity = 128) { return {*ctx, task, config, capacity}; }

  ThreadCount one_thread{1};  // more would only wait for each other
  nn::ModelConfig config;
  std::unique_ptr<Context> ctx;
  CausalLm task;
};

std::vector<int32_t> random_ids(int64_t count, int64_t vocab) {
  const Philox random(3, "ids");
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random.words(i)[0] % vocab));
  return ids;
}

// Whether products on this CPU give a row the same bits alone and among others. oneDNN's AVX-512 kernels do, its AVX2
// kernels sum a single row in another order.
bool rows_are_alike(Model& model) {
  Context& ctx = *model.ctx;
  const ArenaScope scope(ctx.step());
  const DType compute = model.task.parameters().compute_dtype();
  const int64_t d = model.config.hidden_size, rows = 40;
  const Tensor a = ctx.step().allocate("a", compute, {rows, d}), b = ctx.step().allocate("b", compute, {d, d});
  const Philox random(1, "rows");
  for (const Tensor& tensor : {a, b}) {
    dispatch_float(compute, [&](auto zero) {
      using T = decltype(zero);
      for (int64_t i = 0; i < tensor.count(); ++i) tensor.as<T>()[i] = T(random.normal(i));
    });
  }
  const Tensor all = ctx.step().allocate("all", DType::kF32, {rows, d});
  const Tensor one = ctx.step().allocate("one", DType::kF32, {1, d});
  ops::matmul(ctx, {.out = all, .a = a, .b = b, .transpose_b = true});
  ops::matmul(ctx, {.out = one, .a = a.slice_rows(7, 1), .b = b, .transpose_b = true});
  return std::memcmp(one.data, all.slice_rows(7, 1).data, one.bytes()) == 0;
}

double largest_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}

TEST(Decoding, KeptKeysAndValuesGiveTheLogitsOfReadingEverythingAgain) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    for (const Variant& variant : variants()) {
      SCOPED_TRACE(fmt::format("{}, {}", variant.name, to_string(compute)));
      Model model(variant.config, compute);
      // Where single rows are summed in another order: f32 roundings, or a flip of bf16's last bit now and then.
      const double tolerance = rows_are_alike(model) ? 0 : compute == DType::kF32 ? 1e-5 : 0.05;
      const std::vector<int32_t> ids = random_ids(90, variant.config.vocab_size);
      Decoder kept = model.decoder(), again = model.decoder();
      constexpr size_t kPrompt = 13;
      for (size_t length = kPrompt; length <= ids.size(); ++length) {
        const auto unread = length == kPrompt ? std::span(ids).first(kPrompt) : std::span(ids).subspan(length - 1, 1);
        const auto cached = kept.read(unread);
        again.clear();
        const auto whole = again.read(std::span(ids).first(length));
        ASSERT_LE(largest_difference(cached, whole), tolerance) << "after " << length << " tokens";
      }
    }
  }
}

// The forward pass of training and evaluation takes its attention in tiles: the same up to rounding.
TEST(Decoding, LogitsAreThoseOfTheTrainingForward) {
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(variant.name);
    Model model(variant.config);
    Context& ctx = *model.ctx;
    const std::vector<int32_t> ids = random_ids(100, variant.config.vocab_size);
    const auto rows = static_cast<int64_t>(ids.size()), layers = model.task.moe_layers();
    const Tensor tokens = ctx.state().allocate("tokens", DType::kI32, {1, rows});
    ctx.upload(tokens, ids.data());
    const Tensor logits = ctx.state().allocate("logits", DType::kF32, {rows, variant.config.vocab_size});
    nn::Pass pass{
        .ctx = ctx,
        .compute = DType::kF32,
        .batch = 1,
        .sequence_length = rows,
        .capacity_factor = std::nullopt,
        .statistics = {ctx.state().allocate("statistics", DType::kF32, {layers}),
                       ctx.state().allocate("statistics", DType::kI32, {layers, variant.config.moe.experts})}};
    model.task.logits(pass, tokens, logits);
    const std::vector<float> expected = to_host(ctx, logits);
    Decoder decoder = model.decoder();
    for (int64_t i = 0; i < rows; ++i) {
      const auto found = decoder.read(std::span(ids).subspan(i, 1));
      ASSERT_LE(largest_difference(found, std::span(expected).subspan(i * found.size(), found.size())), 2e-5) << i;
    }
    ctx.step().check_empty();
  }
}

struct Text {
  std::vector<int32_t> ids;
  bool ended;
};

Text continued(Model& model, const Generation& generation, const std::vector<int32_t>& prompt = {1, 2, 3}) {
  Decoder decoder = model.decoder();
  Text text;
  text.ended = generate(decoder, prompt, generation, [&](int32_t id) { text.ids.push_back(id); });
  return text;
}

constexpr int32_t kNever = -1;

TEST(Generation, CachedAndUncachedTakeTheSameIds) {
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(variant.name);
    Model model(variant.config);
    for (const double temperature : {0.0, 1.0, 3.0}) {
      Generation generation{.tokens = 60, .vocab = variant.config.vocab_size, .end = kNever, .sampling = {}};
      generation.sampling = {.temperature = temperature, .top_p = 0.9, .seed = 11};
      const Text cached = continued(model, generation);
      generation.use_cache = false;
      EXPECT_EQ(continued(model, generation).ids, cached.ids);
      EXPECT_EQ(cached.ids.size(), 60u);
    }
  }
}

TEST(Generation, SameSeedSameTextAnotherSeedAnother) {
  Model model(variants().back().config);
  Generation generation{.tokens = 40, .vocab = model.config.vocab_size, .end = kNever, .sampling = {}};
  const Text first = continued(model, generation);
  EXPECT_EQ(continued(model, generation).ids, first.ids);
  generation.sampling.seed = 2;
  EXPECT_NE(continued(model, generation).ids, first.ids);
}

TEST(Generation, ThreadsDoNotMatter) {
  Model model(variants().back().config);
  const Generation generation{.tokens = 5, .vocab = model.config.vocab_size, .end = kNever, .sampling = {}};
  const Text one = continued(model, generation);
  const ThreadCount threads(2);
  EXPECT_EQ(continued(model, generation).ids, one.ids);
}

TEST(Generation, StopsAtTheEndOfTextWithoutGivingIt) {
  Model model(variants().front().config);
  Generation generation{.tokens = 40, .vocab = model.config.vocab_size, .end = kNever, .sampling = {}};
  const Text endless = continued(model, generation);
  EXPECT_FALSE(endless.ended);
  generation.end = endless.ids[20];
  const auto at = std::ranges::find(endless.ids, generation.end);
  const Text ended = continued(model, generation);
  EXPECT_TRUE(ended.ended);
  EXPECT_EQ(ended.ids, std::vector<int32_t>(endless.ids.begin(), at));
}

TEST(Generation, IdsThatOnlyPadTheVocabularyAreNeverTaken) {
  Model model(variants().front().config);
  Generation generation{.tokens = 100, .vocab = 5, .end = kNever, .sampling = {}};
  generation.sampling.temperature = 5;
  for (const int32_t id : continued(model, generation).ids) EXPECT_LT(id, 5);
}

}  // namespace
}  // namespace mhmoe::train
