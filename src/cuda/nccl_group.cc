#include "cuda/nccl_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cuda/identity.h"
#include "cuda/nccl_check.h"
#include "cuda/nccl_communicator.h"

namespace mhmoe::cuda {
namespace {

// What all ranks must have in common: sums of different kinds of devices have different bits, and NCCLs of different
// versions do not understand each other.
std::string equipment() {
  int device = 0, driver = 0, major = 0, minor = 0;
  MHMOE_CUDA_CHECK(cudaGetDevice(&device));
  MHMOE_CUDA_CHECK(cudaDriverGetVersion(&driver));
  MHMOE_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  MHMOE_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return fmt::format("{} ({}.{}), driver for CUDA {}.{}, NCCL {}", device_model(device), major, minor, driver / 1000,
                     driver % 1000 / 10, nccl_version());
}

// What a rank tells the others.
struct Word {
  std::string equipment, group;
  ncclUniqueId id{};

  std::string packed() const { return equipment + '\n' + group + '\n' + std::string(id.internal, sizeof(id)); }
  static Word unpacked(const std::string& text) {
    const size_t first = text.find('\n'), second = text.find('\n', first + 1);
    Word word{.equipment = text.substr(0, first), .group = text.substr(first + 1, second - first - 1)};
    std::memcpy(word.id.internal, text.data() + second + 1, sizeof(word.id));
    return word;
  }
};

// "0-2, 5" of ascending numbers.
std::string ranges(const std::vector<size_t>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t end = i + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    text += text.empty() ? "" : ", ";
    text += end - i == 1 ? std::to_string(numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[end - 1]);
    i = end;
  }
  return text;
}

void check_equipment(const std::vector<Word>& words) {
  std::map<std::string, std::vector<size_t>> owners;
  for (size_t rank = 0; rank < words.size(); ++rank) owners[words[rank].equipment].push_back(rank);
  if (owners.size() == 1) return;
  std::string table;
  for (const auto& [what, ranks] : owners) {
    table += fmt::format("{}ranks {}: {}", table.empty() ? "" : "; ", ranges(ranks), what);
  }
  fail(ExitCode::kDevice, "the ranks of this job have different GPUs, drivers or NCCLs, which must be alike: {}",
       table);
}

}  // namespace

ncclUniqueId agree_on_id(Job& job, std::span<const int> ranks) {
  Word mine{.equipment = equipment(), .group = fmt::format("{}", fmt::join(ranks, " "))};
  if (job.rank() == ranks.front()) MHMOE_NCCL_CHECK(nullptr, ncclGetUniqueId(&mine.id));
  std::vector<Word> words;
  for (const std::string& text : job.gather(mine.packed())) words.push_back(Word::unpacked(text));
  check_equipment(words);
  for (const int rank : ranks) {
    const std::string& group = words[static_cast<size_t>(rank)].group;
    MHMOE_CHECK(group == mine.group, "rank {} makes a communicator of the ranks {}, rank {} one of {}", job.rank(),
                mine.group, rank, group);
  }
  return words[static_cast<size_t>(ranks.front())].id;
}

}  // namespace mhmoe::cuda
