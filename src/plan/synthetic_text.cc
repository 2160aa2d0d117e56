#include "plan/synthetic_text.h"

#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include "core/philox.h"

namespace mhmoe::plan {
namespace {

// Numbers one after another.
class Draw {
 public:
  explicit Draw(uint64_t seed) : philox_(seed, "synthetic text") {}
  double uniform() { return philox_.uniform(next_++); }
  int64_t below(int64_t limit) { return static_cast<int64_t>(uniform() * static_cast<double>(limit)); }

 private:
  Philox philox_;
  uint64_t next_ = 0;
};

std::string make_word(Draw& draw, int64_t syllables) {
  constexpr std::array<std::string_view, 16> kOnset = {"t", "s",  "th", "w", "h",  "r", "n", "d",
                                                       "l", "st", "b",  "f", "pr", "c", "m", "g"};
  constexpr std::array<std::string_view, 8> kVowel = {"e", "a", "o", "i", "u", "ea", "ou", "e"};
  constexpr std::array<std::string_view, 8> kCoda = {"", "n", "r", "s", "", "t", "ng", "l"};
  std::string word;
  for (int64_t i = 0; i < syllables; ++i) {
    word += kOnset[draw.below(kOnset.size())];
    word += kVowel[draw.below(kVowel.size())];
    word += kCoda[draw.below(kCoda.size())];
  }
  return word;
}

std::vector<std::string> make_words(Draw& draw) {
  constexpr size_t kWords = 30000, kShort = 200;
  std::vector<std::string> words;
  while (words.size() < kWords) words.push_back(make_word(draw, words.size() < kShort ? 1 : 1 + draw.below(3)));
  return words;
}

void add_sentence(Draw& draw, const std::vector<std::string>& words, std::string& text) {
  const int64_t length = 4 + draw.below(20);
  const double log_count = std::log(static_cast<double>(words.size()));
  for (int64_t i = 0; i < length; ++i) {
    std::string word = words[static_cast<size_t>(std::exp(draw.uniform() * log_count)) - 1];
    if (i == 0) word[0] = static_cast<char>(word[0] - 'a' + 'A');
    text += word;
    if (i + 1 < length) text += draw.below(12) == 0 ? ", " : " ";
  }
  text += ". ";
}

}  // namespace

std::string synthetic_corpus(uint64_t seed, int64_t bytes) {
  Draw draw(seed);
  const std::vector<std::string> words = make_words(draw);
  std::string corpus;
  while (static_cast<int64_t>(corpus.size()) < bytes) {
    corpus += "{\"text\": \"";
    for (int64_t sentences = 10 + draw.below(40); sentences > 0; --sentences) add_sentence(draw, words, corpus);
    corpus += "\"}\n";
  }
  return corpus;
}

}  // namespace mhmoe::plan
