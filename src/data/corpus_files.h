// Which files a corpus consists of.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mhmoe::data {

// What a file's name says it holds, compressed (.gz, .zst) or not: .jsonl, one JSON object a line; .txt, one document.
// .json.gz and .json.zst are .jsonl too, as RedPajama-V2 names them; a plain .json is no corpus file.
enum class CorpusFormat : uint8_t { kNone, kJsonLines, kText };
CorpusFormat corpus_format(std::string_view path);

// The corpus files that `inputs` name, in order. A folder is searched with all it contains, a pattern with *, ? or [..]
// is expanded; both are sorted by path and leave files of other kinds alone.
// Throws Error(kMissingInput) for what does not exist, Error(kUsage) for a file of another kind and for a folder or
// pattern without any.
std::vector<std::string> find_corpus_files(std::span<const std::string> inputs);

}  // namespace mhmoe::data
