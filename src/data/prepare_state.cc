#include "data/prepare_state.h"

#include <filesystem>

#include "core/file.h"
#include "core/file_system.h"
#include "core/hash.h"
#include "data/sealed_json.h"
#include "data/shards.h"

namespace mhmoe::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJournal = ".progress.json";

bool exists(const std::string& path) {
  std::error_code unknown;  // then opening it says why
  return fs::exists(path, unknown) || unknown;
}

std::optional<ShardInfo> read_info(const std::string& prefix) {
  const std::string path = prefix + ".json";
  if (!exists(path)) return {};
  return parse_shard_info(InputFile(path).read_whole(), path);
}

std::optional<PrepareJournal> read_journal(const std::string& prefix) {
  const std::string path = prefix + kJournal;
  if (!exists(path)) return {};
  const json::Value object = unseal(InputFile(path).read_whole(), path, "start again with --overwrite");
  const json::Value& position = object_member(object, "position");
  return PrepareJournal{.position = {.file = static_cast<size_t>(count_member(position, "file")),
                                     .offset = count_member(position, "offset"),
                                     .lines = count_member(position, "lines")},
                        .shard = shard_info_of(object_member(object, "shard"))};
}

// Where all will be replaced, what is damaged is as good as absent.
template <class Read>
auto read_unless_damaged(bool overwrite, Read&& read) -> decltype(read()) {
  try {
    return read();
  } catch (const Error& error) {
    if (!overwrite || error.code() != ExitCode::kBadData) throw;
    return {};
  }
}

[[noreturn]] void fail_taken(const std::string& path, const std::optional<ShardInfo>& info,
                             const Tokenizer& tokenizer) {
  const std::string whose = !info ? "it was made by another program"
                            : info->tokenizer_hash == tokenizer.hash()
                                ? "it was made from other files, or they have changed since"
                                : fmt::format("it was made with another tokenizer (hash {}; the one given has {})",
                                              to_hex(info->tokenizer_hash), to_hex(tokenizer.hash()));
  fail(ExitCode::kCannotCreate,
       "{}: there is a shard already, whole or in part, and {}; name another --output, or "
       "replace it with --overwrite",
       path, whose);
}

}  // namespace

void write_journal(const std::string& prefix, const PrepareJournal& journal) {
  json::Value position = json::Value::object();
  position.add("file", static_cast<int64_t>(journal.position.file));
  position.add("offset", journal.position.offset);
  position.add("lines", journal.position.lines);
  json::Value object = json::Value::object();
  object.add("position", std::move(position));
  object.add("shard", to_json(journal.shard));
  AtomicFile file(prefix + kJournal);
  file.write(seal(object));
  file.commit();
}

bool has_journal(const std::string& prefix) {
  return exists(prefix + kJournal);
}

void remove_journal(const std::string& prefix) {
  file_system().remove_file((prefix + kJournal).c_str());
}

uint64_t hash_of_inputs(const std::vector<std::string>& files, const std::string& text_field) {
  HashStream hash;
  hash.update(fmt::format("{} files, field {}\n", files.size(), text_field));
  for (const std::string& path : files) {
    const InputFile file(path);
    std::error_code error;
    const fs::path whole = fs::canonical(path, error);
    if (error) fail_errno(path, "resolve", error.value());
    hash.update(fmt::format("{}\n{} bytes of {}\n", whole.string(), file.state().bytes, file.state().modified));
  }
  return hash.digest();
}

EarlierWork find_earlier_work(const std::string& prefix, uint64_t inputs_hash, const Tokenizer& tokenizer,
                              bool overwrite) {
  const auto is_ours = [&](const ShardInfo& info) {
    return info.inputs_hash == inputs_hash && info.tokenizer_hash == tokenizer.hash();
  };
  const auto journal = read_unless_damaged(overwrite, [&] { return read_journal(prefix); });
  const bool begun = journal && is_ours(journal->shard);
  // While there is a journal, index and description may be newer than the tokens beside them.
  if (begun && exists(prefix + kPartialTokens)) return {.shard = {}, .journal = journal};
  const auto info = read_unless_damaged(overwrite, [&] { return read_info(prefix); });
  const bool whole = info && is_ours(*info) && exists(prefix + ".idx") && exists(prefix + ".bin");
  if (whole) {
    auto opened = read_unless_damaged(overwrite, [&] { return Shard(prefix, tokenizer).info(); });
    if (opened) return {.shard = std::move(opened), .journal = {}};
  }
  if (overwrite || begun) return {};
  if (journal) fail_taken(prefix + kJournal, journal->shard, tokenizer);
  for (const char* suffix : {".json", ".idx", ".bin"}) {
    if (exists(prefix + suffix) && !(info && is_ours(*info))) fail_taken(prefix + suffix, info, tokenizer);
  }
  return {};
}

void remove_leftovers(const std::string& prefix) {
  for (const char* suffix : {kJournal, kPartialTokens, kPartialSizes}) {
    file_system().remove_file((prefix + suffix).c_str());
  }
}

}  // namespace mhmoe::data
