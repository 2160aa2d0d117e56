// What travels when experts are shared out among ranks, in what order, and what happens when it arrives changed.
#include <set>

#include "device/sizing_communicator.h"
#include "nn/expert_ranks.h"

namespace mhmoe::nn_test {
namespace {

ExpertCase plain_case() {
  return {.name = "plain", .config = exchange_config(2)};
}
ExpertCase dropless_case() {
  ExpertCase test = plain_case();
  test.config.moe.capacity_factor.reset();
  return test;
}

// Flips the lowest bit of the last byte that rank 1 sends to rank 0 in the call.
test::ThreadGroup::Tamper flip_in(const std::string& call) {
  return [call](const std::string& purpose, int sender, int receiver, Bytes& bytes) {
    if (purpose == call && sender == 1 && receiver == 0) bytes.back() ^= std::byte{1};
  };
}

const char* const kCalls[] = {"row counts",           "gates",         "dispatch", "combine", "dispatch of gradients",
                              "combine of gradients", "gate gradients"};

TEST(VerifiedTransfers, AFlippedBitStopsTheJobWithCallSenderAndReceiver) {
  for (const ExpertCase& test : {plain_case(), dropless_case()}) {
    for (const std::string call : kCalls) {
      for (const int chunks : {1, 2}) {
        try {
          run_shared(test, 2, {.overlap_chunks = chunks, .verify = true}, flip_in("moe " + call));
          ADD_FAILURE() << call << ": no error";
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ExitCode::kCorruption) << error.what();
          EXPECT_NE(std::string(error.what()).find("[moe " + call + "] rows from rank 101 reached rank 100 changed"),
                    std::string::npos)
              << error.what();
        }
      }
    }
  }
}

TEST(VerifiedTransfers, WithoutThemAFlippedBitChangesResults) {
  const Tensors expected = run_shared(dropless_case(), 2);
  EXPECT_TRUE(run_shared(dropless_case(), 2, {}, flip_in("moe gates")) != expected);
}

// Purposes of the calls, with the bytes that went to other ranks
std::map<std::string, size_t> calls_of(const ExpertCase& test, int ranks, const LayerRank::Options& options) {
  std::map<std::string, size_t> calls;
  std::mutex mutex;
  run_shared(test, ranks, options, [&](const std::string& purpose, int sender, int receiver, const Bytes& bytes) {
    const std::lock_guard lock(mutex);
    calls[purpose] += sender == receiver ? 0 : bytes.size();
  });
  return calls;
}

TEST(ExpertTraffic, IsRowsOfFullCapacityAndAGateForEach) {
  const ExpertCase test = plain_case();
  const int64_t rows = 14 * 2, w = 12, capacity = nn::expert_capacity(test.config.moe, 1.0, rows);
  const auto moved = static_cast<size_t>(2 * 4 * capacity);  // by two ranks, for the four experts of the other
  const std::map<std::string, size_t> expected = {{"moe row counts", 2 * 4 * 4},
                                                  {"moe gates", moved * 4},
                                                  {"moe gate gradients", moved * 4},
                                                  {"moe dispatch", moved * w * 4},
                                                  {"moe combine", moved * w * 4},
                                                  {"moe dispatch of gradients", moved * w * 4},
                                                  {"moe combine of gradients", moved * w * 4}};
  EXPECT_EQ(calls_of(test, 2, {}), expected);
  EXPECT_EQ(calls_of(test, 2, {.overlap_chunks = 4}), expected);
}

TEST(ExpertTraffic, WithoutBackwardNoGatesTravelAndResultsAreTheSame) {
  for (const ExpertCase& test : {plain_case(), dropless_case()}) {
    const auto calls = calls_of(test, 2, {.training = false});
    EXPECT_EQ(calls.size(), 3U);
    EXPECT_FALSE(calls.contains("moe gates"));
    const Tensors trained = run_shared(test, 2), evaluated = run_shared(test, 2, {.training = false});
    EXPECT_EQ(evaluated.at("rank 1 y"), trained.at("rank 1 y"));
  }
}

// Both products of its hidden layer and the gradients of the merge layer's parameters are work for the time of waiting.
TEST(ExpertTraffic, TheSharedExpertIsComputedWhileRowsTravel) {
  ExpertCase test = plain_case();
  test.config.moe.shared_expert_hidden_size = 12;
  std::vector<std::string> order;  // of rank 1's calls and tensors
  std::mutex mutex;
  const auto note = [&](const std::string& what) {
    const std::lock_guard lock(mutex);
    order.push_back(what);
  };
  test::ThreadGroup group(2, [&](const std::string& purpose, int sender, int receiver, const Bytes& /*bytes*/) {
    if (sender == 1 && receiver == 1) note(purpose);
  });
  test::run_ranks(group, [&](int rank) {
    test::ThreadCommunicator communicator(group, rank);
    LayerRank layer(test, int64_t{4} * rank, 4);
    nn::DirectGradientSink sink;
    LayerRank::Options options = {.experts = &communicator};
    if (rank == 1) options.seen = note;
    layer.run(rank, sink, options);
  });
  const auto place = [&](const char* what) { return std::ranges::find(order, what) - order.begin(); };
  EXPECT_LT(place("moe dispatch"), place("moe.shared_expert.pre_activation"));
  EXPECT_LT(place("moe.shared_expert.pre_activation"), place("moe combine"));
  EXPECT_LT(place("moe dispatch of gradients"), place("grad.moe.shared_expert.pre_activation"));
  EXPECT_LT(place("grad.moe.shared_expert.pre_activation"), place("moe combine of gradients"));
}

TEST(ExpertTraffic, AGroupOfOneCommunicatesNothing) {
  const ExpertCase test = plain_case();
  EXPECT_TRUE(calls_of(test, 1, {.overlap_chunks = 4, .verify = true}).empty());
  expect_same(run_shared(test, 1), run_alone(test, 1), "one rank");
}

// As training without width_invariant adds them up.
TEST(SharedExperts, WeightGradientsAddUpInTheOrderOfRanks) {
  for (ExpertCase test : {plain_case(), dropless_case()}) {
    test.config.ffn.bias = true;
    Tensors expected, found;
    LayerRank alone(test, 0, 8);
    nn::DirectGradientSink sink;
    for (int micro_batch = 0; micro_batch < 4; ++micro_batch) alone.run(micro_batch, sink, {});
    alone.collect_gradients(expected, "", true);
    std::erase_if(expected, [](const auto& item) { return item.first.find(".experts.") == std::string::npos; });
    EXPECT_EQ(expected.size(), 8U * 6);

    test::ThreadGroup group(4);
    std::mutex mutex;
    test::run_ranks(group, [&](int rank) {
      test::ThreadCommunicator communicator(group, rank);
      LayerRank layer(test, int64_t{2} * rank, 2);
      nn::DirectGradientSink own;
      layer.run(rank, own, {.experts = &communicator, .overlap_chunks = 2});
      const std::lock_guard lock(mutex);
      layer.collect_gradients(found, "", true);
    });
    std::erase_if(found, [](const auto& item) { return item.first.find(".experts.") == std::string::npos; });
    expect_same(found, expected, "sums over ranks");
  }
}

TEST(SharedExperts, AnotherNumberOfExpertsThanTheGroupSharesOutIsRefused) {
  const ExpertCase test = plain_case();
  test::ThreadGroup group(2);
  try {
    test::run_ranks(group, [&](int rank) {
      test::ThreadCommunicator communicator(group, rank);
      LayerRank layer(test, 0, 8);
      nn::DirectGradientSink sink;
      layer.run(rank, sink, {.experts = &communicator});
    });
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "[moe] 8 experts here, of 8 on 2 ranks");
  }
}

size_t planned_peak(const ExpertCase& test, LayerRank::Options options) {
  const auto communicator = make_sizing_communicator(0, {0, 1});
  options.experts = communicator.get();
  LayerRank layer(test, 0, 4, make_sizing_context(DeviceKind::kCpu, &cpu::backend().kernels));
  nn::DirectGradientSink sink;
  layer.run(0, sink, options);
  return layer.ctx().step().peak_bytes();
}

size_t real_peak(const ExpertCase& test, LayerRank::Options options) {
  size_t peak = 0;
  test::ThreadGroup group(2);
  test::run_ranks(group, [&](int rank) {
    test::ThreadCommunicator communicator(group, rank);
    LayerRank::Options own = options;
    own.experts = &communicator;
    LayerRank layer(test, int64_t{4} * rank, 4);
    nn::DirectGradientSink sink;
    layer.run(rank, sink, own);
    if (rank == 0) peak = layer.ctx().step().peak_bytes();
  });
  return peak;
}

TEST(SharedExperts, ASizingPassKnowsTheirMemory) {
  const ExpertCase test = plain_case();
  for (const bool verify : {false, true}) {
    for (const int chunks : {1, 3}) {
      const LayerRank::Options options = {.overlap_chunks = chunks, .verify = verify};
      EXPECT_EQ(planned_peak(test, options), real_peak(test, options)) << chunks << " chunks, verify " << verify;
    }
  }
  // Without a capacity it plans for equal shares of all ranks' rows.
  EXPECT_GT(planned_peak(dropless_case(), {}), 0U);
}

}  // namespace
}  // namespace mhmoe::nn_test
