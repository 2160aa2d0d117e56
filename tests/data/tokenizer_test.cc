#include "data/tokenizer.h"

#include <sentencepiece_processor.h>

#include "data/fixtures.h"
#include "data/sentencepiece_tokenizer.h"

namespace mhmoe::data {
namespace {

std::string train_small_model(int64_t vocab_size) {
  const std::vector<std::string> lines = {"It is a truth universally acknowledged, that a single man in possession",
                                          "of a good fortune, must be in want of a wife.", "    indented twice",
                                          "However little known the feelings or views of such a man may be",
                                          "on his first entering a neighbourhood, this truth is so well fixed"};
  size_t next = 0;
  return train_sentencepiece(vocab_size, [&](std::string& line) {
    if (next == lines.size()) return false;
    line = lines[next++];
    return true;
  });
}

const std::vector<std::string> kAwkwardTexts = {
    "",
    "truth",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want",
    "However  this   man      entering a  word-longer-than-any-that-is-remembered-by-the-cache",
    " leading and trailing ",
    "two  three   four    spaces",
    "line\nnext\n\nparagraph\r\n\ttab",
    "\n",
    "never seen: \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xf0\x9f\xa6\x98 \xc3\xbc \xef\xac\x81",
    std::string("nul\0inside", 10),
    "a space mark \xe2\x96\x81 \xe2\x96\x81\xe2\x96\x81stays one",
    "</s> <unk> <0x0A> are text",
    "e\xcc\x81 is not composed, \xc2\xa0 no-break space, \xe2\x80\xa9 separators",
};

void expect_round_trips(const Tokenizer& tokenizer) {
  for (const std::string& text : kAwkwardTexts) {
    std::vector<int32_t> ids;
    tokenizer.encode(text, ids);
    EXPECT_EQ(tokenizer.decode(ids), text);
    int64_t bytes = 0;
    for (const int32_t id : ids) {
      EXPECT_NE(id, tokenizer.eos());
      bytes += tokenizer.byte_length(id);
    }
    EXPECT_EQ(bytes, static_cast<int64_t>(text.size()));
  }
  EXPECT_EQ(tokenizer.byte_length(tokenizer.eos()), 0);
}

TEST(ByteTokenizer, RoundTripsEveryTextAndNumbersBytes) {
  const auto tokenizer = load_tokenizer("bytes");
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->eos(), 256);
  std::vector<int32_t> ids;
  tokenizer->encode("A\xff", ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{65, 255}));
  expect_round_trips(*tokenizer);
}

TEST(SentencePieceTokenizer, RoundTripsNewlinesSpacesAndUnseenCharacters) {
  const TemporaryFolder folder;
  write_file(folder / "t.model", train_small_model(330));
  const auto tokenizer = load_tokenizer(folder / "t.model");
  EXPECT_EQ(tokenizer->vocab_size(), 330);
  expect_round_trips(*tokenizer);
}

TEST(SentencePieceTokenizer, MergesFrequentLettersAndAppends) {
  const TemporaryFolder folder;
  write_file(folder / "t.model", train_small_model(330));
  const auto tokenizer = load_tokenizer(folder / "t.model");
  std::vector<int32_t> ids = {3};
  tokenizer->encode("this truth", ids);
  EXPECT_EQ(ids[0], 3);
  EXPECT_LT(ids.size(), 1 + std::string("this truth").size());
}

// The library on the whole text is the oracle of what is cut into lines and words and remembered.
TEST(SentencePieceTokenizer, GivesTheIdsOfTheLibraryOnTheWholeText) {
  const TemporaryFolder folder;
  const std::string model = train_small_model(330);
  write_file(folder / "t.model", model);
  const auto tokenizer = load_tokenizer(folder / "t.model");
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
  for (int repetition = 0; repetition < 2; ++repetition) {
    for (const std::string& text : kAwkwardTexts) {
      if (text.find("\xe2\x96\x81") != std::string::npos) continue;  // the library takes the mark for a space
      std::vector<int32_t> ids;
      tokenizer->encode(text, ids);
      EXPECT_EQ(ids, library.EncodeAsIds(text)) << text;
    }
  }
}

TEST(SentencePieceTokenizer, TwoModelsInOneThreadDoNotMix) {
  const TemporaryFolder folder;
  write_file(folder / "a.model", train_small_model(330));
  write_file(folder / "b.model", train_small_model(300));
  const auto a = load_tokenizer(folder / "a.model"), b = load_tokenizer(folder / "b.model");
  for (int repetition = 0; repetition < 2; ++repetition) {
    for (const auto* tokenizer : {a.get(), b.get()}) {
      std::vector<int32_t> ids;
      tokenizer->encode("a truth universally acknowledged", ids);
      EXPECT_EQ(tokenizer->decode(ids), "a truth universally acknowledged");
    }
  }
}

TEST(SentencePieceTokenizer, TrainingTwiceGivesTheSameModel) {
  EXPECT_EQ(train_small_model(320), train_small_model(320));
  EXPECT_NE(train_small_model(320), train_small_model(310));
}

TEST(SentencePieceTokenizer, RefusesWhatIsNoModelAndWhatCannotBeTrained) {
  const TemporaryFolder folder;
  write_file(folder / "no.model", "not a model");
  expect_error([&] { load_tokenizer(folder / "no.model"); }, {"no.model"});
  expect_error([&] { load_tokenizer(folder / "absent.model"); }, {"absent.model"});
  expect_error([&] { train_small_model(100000); }, {"smaller vocabulary"});
  expect_error([&] { train_small_model(100); }, {"vocabulary of 100"});
}

TEST(Tokenizer, DecodeRefusesIdsOutsideTheVocabulary) {
  const auto tokenizer = load_tokenizer("bytes");
  expect_error([&] { tokenizer->decode(std::vector<int32_t>{257}); }, {"257"});
  expect_error([&] { tokenizer->decode(std::vector<int32_t>{-1}); }, {"-1"});
}

}  // namespace
}  // namespace mhmoe::data
