#include "data/prepare.h"

#include <algorithm>
#include <future>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/parallel_for.h"
#include "data/corpus.h"
#include "data/prepare_state.h"

namespace mhmoe::data {
namespace {

constexpr size_t kBlockBytes = size_t{16} << 20;
constexpr size_t kKeptBytes = size_t{1} << 20;  // of a document's buffers, for the next document in its place

// Documents that are read together and then tokenised by all threads.
struct Block {
  std::vector<RawDocument> documents;  // the first `count`; the rest are buffers
  size_t count = 0;
  CorpusPosition end;
  int64_t bytes_read = 0;  // of the files, up to its end

  void read(CorpusReader& corpus, size_t most) {
    count = 0;
    for (size_t bytes = 0; count < most && bytes < kBlockBytes; ++count) {
      if (count == documents.size()) documents.emplace_back();
      std::string& buffer = documents[count].bytes;
      if (buffer.capacity() > kKeptBytes) buffer = {};
      if (!corpus.next(documents[count])) break;
      bytes += buffer.size();
    }
    end = corpus.position();
    bytes_read = corpus.bytes_read();
  }

  int64_t bytes() const {
    int64_t sum = 0;
    for (size_t i = 0; i < count; ++i) sum += static_cast<int64_t>(documents[i].bytes.size());
    return sum;
  }
};

// The texts of a block as tokens.
class BlockEncoder {
 public:
  BlockEncoder(const Tokenizer& tokenizer, const std::vector<std::string>& files, const std::string& text_field)
      : tokenizer_(tokenizer), files_(files) {
    for (int i = 0; i < thread_count(); ++i) parsers_.emplace_back(text_field);
  }

  void encode(Block& block) {
    documents_.resize(std::max(documents_.size(), block.count));
    parallel_tasks(static_cast<int64_t>(block.count),
                   [&](int64_t i, int thread) { encode(block.documents[i], parsers_[thread], documents_[i]); });
  }

  void write(const Block& block, ShardWriter& writer) const {
    for (size_t i = 0; i < block.count; ++i) {
      // The first in the corpus's order, whichever thread met its own first.
      if (documents_[i].error) std::rethrow_exception(documents_[i].error);
      writer.add_document(documents_[i].ids, documents_[i].utf8_bytes);
    }
  }

 private:
  struct Document {
    std::vector<int32_t> ids;
    int64_t utf8_bytes = 0;
    std::exception_ptr error;
  };

  void encode(RawDocument& raw, DocumentParser& parser, Document& out) const {
    if (out.ids.capacity() > kKeptBytes) out.ids = {};
    out.ids.clear();
    try {
      const std::string_view text = parser.parse(raw, files_[raw.file]);
      tokenizer_.encode(text, out.ids);
      out.utf8_bytes = static_cast<int64_t>(text.size());
    } catch (...) {
      out.error = std::current_exception();
    }
  }

  const Tokenizer& tokenizer_;
  const std::vector<std::string>& files_;
  std::vector<DocumentParser> parsers_;  // one a thread
  std::vector<Document> documents_;
};

// Behind what the interrupted run wrote; null if that is damaged and to be replaced.
std::unique_ptr<ShardWriter> reopen_writer(const std::string& prefix, const Tokenizer& tokenizer,
                                           const ShardInfo& durable, bool overwrite) {
  try {
    return std::make_unique<ShardWriter>(prefix, tokenizer, durable);
  } catch (const Error& error) {
    if (!overwrite || error.code() != ExitCode::kBadData) throw;
    return nullptr;
  }
}

class Preparation {
 public:
  // `writer` stands at `start` of the files.
  Preparation(const std::vector<std::string>& files, const std::string& prefix, const Tokenizer& tokenizer,
              const PrepareOptions& options, std::unique_ptr<ShardWriter> writer, const CorpusPosition& start)
      : prefix_(prefix),
        options_(options),
        corpus_(files, start),
        encoder_(tokenizer, corpus_.files(), options.text_field),
        writer_(std::move(writer)) {}

  ShardInfo run() {
    try {
      write_documents();
      // The shard's files appear one after another: until all have, the journal says that they are to be made again.
      save(corpus_.position());
      ShardInfo info = writer_->finish();
      remove_journal(prefix_);
      return info;
    } catch (const Error& error) {
      // Bad input must be changed, and then what was made of it is of no use.
      if (error.code() == ExitCode::kBadData) {
        remove_journal(prefix_);
      } else if (has_journal(prefix_)) {
        writer_->keep_partial();
      }
      throw;
    }
  }

 private:
  // Reading the next block goes on while the last one is tokenised.
  void write_documents() {
    Block now, ahead;
    now.read(corpus_, options_.block_documents);
    int64_t unsaved = 0;
    while (now.count > 0) {
      std::future<void> next = std::async(std::launch::async, [&] { ahead.read(corpus_, options_.block_documents); });
      encoder_.encode(now);
      encoder_.write(now, *writer_);
      options_.progress({now.bytes_read, corpus_.bytes_total()});
      unsaved += now.bytes();
      if (unsaved >= options_.durable_bytes) {
        save(now.end);
        unsaved = 0;
      }
      next.get();
      std::swap(now, ahead);
    }
  }

  void save(const CorpusPosition& position) {
    write_journal(prefix_, {.position = position, .shard = writer_->sync()});
  }

  std::string prefix_;
  const PrepareOptions& options_;
  CorpusReader corpus_;
  BlockEncoder encoder_;
  std::unique_ptr<ShardWriter> writer_;
};

}  // namespace

PrepareResult prepare_shard(const std::vector<std::string>& files, const std::string& prefix,
                            const Tokenizer& tokenizer, const PrepareOptions& options) {
  const uint64_t inputs_hash = hash_of_inputs(files, options.text_field);
  EarlierWork earlier = find_earlier_work(prefix, inputs_hash, tokenizer, options.overwrite);
  if (earlier.shard) {
    remove_leftovers(prefix);
    return {.info = std::move(*earlier.shard), .up_to_date = true};
  }
  std::unique_ptr<ShardWriter> writer;
  CorpusPosition start;
  PrepareResult result;
  if (earlier.journal) {
    writer = reopen_writer(prefix, tokenizer, earlier.journal->shard, options.overwrite);
  }
  if (writer) {
    start = earlier.journal->position;
    result.continued_documents = earlier.journal->shard.documents;
    result.continued_bytes = earlier.journal->shard.utf8_bytes;
  } else {
    remove_journal(prefix);
    writer = std::make_unique<ShardWriter>(prefix, tokenizer, inputs_hash);
  }
  result.info = Preparation(files, prefix, tokenizer, options, std::move(writer), start).run();
  return result;
}

bool was_prepared(const std::vector<std::string>& files, const std::string& prefix, const Tokenizer& tokenizer,
                  const std::string& text_field) {
  const EarlierWork earlier = find_earlier_work(prefix, hash_of_inputs(files, text_field), tokenizer, true);
  return earlier.shard || earlier.journal;
}

}  // namespace mhmoe::data
