#include "comm/dispatch.h"

#include "core/hash.h"

namespace mhmoe::comm {
namespace {

// One block of rows for each peer.
struct Blocks {
  std::vector<int64_t> begin, rows;
};

Blocks blocks_of(const std::vector<int64_t>& places, int64_t local_experts, ExpertRange experts) {
  Blocks blocks;
  for (size_t i = 0; i + 1 < places.size(); i += static_cast<size_t>(local_experts)) {
    const int64_t* first = places.data() + i + experts.begin;
    blocks.begin.push_back(first[0]);
    blocks.rows.push_back(first[experts.count] - first[0]);
  }
  return blocks;
}

std::vector<int64_t> sums_of(const std::vector<int32_t>& counts) {
  std::vector<int64_t> sums = {0};
  for (const int32_t count : counts) sums.push_back(sums.back() + count);
  return sums;
}

std::vector<uint64_t> checksums_of(Context& ctx, const Tensor& tensor, const Blocks& blocks) {
  std::vector<uint64_t> sums;
  std::vector<std::byte> copy;
  for (size_t p = 0; p < blocks.rows.size(); ++p) {
    const Tensor block = tensor.slice_rows(blocks.begin[p], blocks.rows[p]);
    const void* data = block.data;
    if (block.device != DeviceKind::kCpu) {
      copy.resize(block.bytes());
      ctx.download(copy.data(), block);
      data = copy.data();
    }
    sums.push_back(xxh3(data, block.bytes()));
  }
  return sums;
}

constexpr int64_t kWords = sizeof(uint64_t) / sizeof(int32_t);

}  // namespace

ExpertRange chunk_of(int64_t local_experts, int64_t chunk, int64_t chunks) {
  const int64_t begin = local_experts * chunk / chunks;
  return {begin, local_experts * (chunk + 1) / chunks - begin};
}

RowPlaces RowPlaces::equal_shares(int64_t experts, int64_t local_experts, int64_t rows_each) {
  RowPlaces places{.local_experts = local_experts, .home = {}, .away = {}, .equal = true};
  for (int64_t i = 0; i <= experts; ++i) places.home.push_back(i * rows_each);
  places.away = places.home;
  return places;
}

RowPlaces RowPlaces::of_counts(int64_t local_experts, const std::vector<int32_t>& home,
                               const std::vector<int32_t>& away) {
  return {.local_experts = local_experts, .home = sums_of(home), .away = sums_of(away)};
}

Dispatch::Travel Dispatch::start(const Tensor& out, const std::vector<int64_t>& to, const Tensor& in,
                                 const std::vector<int64_t>& from, ExpertRange experts, const char* what) {
  Travel travel{.what = what, .out = out, .to = &to, .experts = experts, .rows = {}};
  if (verify_) send_checksums(travel, in, from);
  if (places_.equal && experts.count == places_.local_experts) {
    travel.rows = group_.all_to_all(out, in, purpose(what));
    return travel;
  }
  const Blocks sent = blocks_of(from, places_.local_experts, experts);
  const Blocks received = blocks_of(to, places_.local_experts, experts);
  travel.rows = group_.all_to_all_rows({.out = out,
                                        .in = in,
                                        .send_begin = sent.begin,
                                        .send_rows = sent.rows,
                                        .receive_begin = received.begin,
                                        .receive_rows = received.rows,
                                        .equal = places_.equal},
                                       purpose(what));
  return travel;
}

void Dispatch::wait(const Travel& travel) {
  group_.wait(travel.rows);
  if (!verify_) return;
  group_.wait(travel.checksums);
  if (!ctx_.sizing()) compare_checksums(travel);
}

void Dispatch::send_checksums(Travel& travel, const Tensor& in, const std::vector<int64_t>& from) {
  const int64_t words = kWords * group_.size();
  const Tensor sent = ctx_.step().allocate("transfer checksums", DType::kI32, {words});
  travel.received_checksums = ctx_.step().allocate("transfer checksums", DType::kI32, {words});
  if (!ctx_.sizing()) {
    ctx_.upload(sent, checksums_of(ctx_, in, blocks_of(from, places_.local_experts, travel.experts)).data());
  }
  travel.checksums = group_.all_to_all(travel.received_checksums, sent, purpose(travel.what) + " checksums");
}

void Dispatch::compare_checksums(const Travel& travel) {
  std::vector<uint64_t> sent(static_cast<size_t>(group_.size()));
  ctx_.download(sent.data(), travel.received_checksums);
  const auto received = checksums_of(ctx_, travel.out, blocks_of(*travel.to, places_.local_experts, travel.experts));
  for (size_t p = 0; p < sent.size(); ++p) {
    if (sent[p] == received[p]) continue;
    fail(
        ExitCode::kCorruption,
        "[{}] rows from rank {} reached rank {} changed: checksum {} was sent, {} arrived; memory or a link is faulty. "
        "Resume from the last checkpoint, without that machine",
        purpose(travel.what), group_.ranks()[p], group_.ranks()[static_cast<size_t>(group_.rank())], to_hex(sent[p]),
        to_hex(received[p]));
  }
}

}  // namespace mhmoe::comm
