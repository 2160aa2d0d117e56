#include "train/rank_agreement.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "comm/job.h"
#include "core/file.h"
#include "core/hash.h"

namespace mhmoe::train {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string without_spaces_around(const std::string& line) {
  const size_t begin = line.find_first_not_of(' ');
  return begin == std::string::npos ? "nothing" : line.substr(begin, line.find_last_not_of(" ,") + 1 - begin);
}

// The first place in which not all texts are equal.
size_t first_difference(const std::vector<std::vector<std::string>>& texts) {
  for (size_t i = 0;; ++i) {
    const auto differs = [&](const std::vector<std::string>& text) {
      return i >= text.size() || i >= texts[0].size() || text[i] != texts[0][i];
    };
    if (std::ranges::any_of(texts, differs)) return i;
  }
}

// "ranks 0, 2 have 5; rank 1 has 6"
std::string describe(const std::vector<std::string>& values) {
  std::vector<std::vector<std::string>> texts;
  for (const std::string& value : values) texts.push_back(lines_of(value));
  const size_t line = first_difference(texts);
  std::map<std::string, std::vector<size_t>> ranks;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    ranks[line < texts[rank].size() ? without_spaces_around(texts[rank][line]) : "nothing"].push_back(rank);
  }
  std::string out;
  for (const auto& [value, who] : ranks) {
    std::string list;
    for (const size_t rank : who) list += (list.empty() ? "" : ", ") + std::to_string(rank);
    out += fmt::format("{}{} {} {} {}", out.empty() ? "" : "; ", who.size() > 1 ? "ranks" : "rank", list,
                       who.size() > 1 ? "have" : "has", value);
  }
  return out;
}

}  // namespace

void require_agreement(Job& job, const std::vector<Compared>& compared) {
  for (const Compared& one : compared) {
    const std::vector<std::string> values = job.gather(one.value);
    const auto differs = [&](const std::string& value) { return value != values[0]; };
    if (std::ranges::none_of(values, differs)) continue;
    throw comm::AgreedError(
        ExitCode::kConfig,
        fmt::format("the ranks of this job were started with different things: {}: {}; start all of them alike",
                    one.what, describe(values)),
        0);
  }
}

std::string program_hash() {
  const std::string file = InputFile("/proc/self/exe").read_whole();
  return to_hex(xxh3(file.data(), file.size()));
}

}  // namespace mhmoe::train
