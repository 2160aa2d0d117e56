// What `mhmoe prepare` finds where it is to write: a shard, the beginning of one, or nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/shard_info.h"
#include "data/tokenizer.h"

namespace mhmoe::data {

// How far an interrupted run got: what PREFIX.progress.json holds.
struct PrepareJournal {
  CorpusPosition position;
  ShardInfo shard;  // what ShardWriter::sync() gave
};

void write_journal(const std::string& prefix, const PrepareJournal& journal);
bool has_journal(const std::string& prefix);
void remove_journal(const std::string& prefix);

// Of the files' full names, sizes and times of modification, and of the field that texts are taken from: what stands
// for the input, since hashing all of it would take as long as reading it.
uint64_t hash_of_inputs(const std::vector<std::string>& files, const std::string& text_field);

// Both absent: there is nothing at `prefix`, or it is to be replaced.
struct EarlierWork {
  std::optional<ShardInfo> shard;         // the whole of it is there
  std::optional<PrepareJournal> journal;  // an interrupted run got this far
};

// What runs on the same input with the same tokenizer left. Anything else, and anything damaged, throws
// Error(kCannotCreate) or Error(kBadData) unless `overwrite`.
EarlierWork find_earlier_work(const std::string& prefix, uint64_t inputs_hash, const Tokenizer& tokenizer,
                              bool overwrite);

// The journal and the partial files.
void remove_leftovers(const std::string& prefix);

}  // namespace mhmoe::data
