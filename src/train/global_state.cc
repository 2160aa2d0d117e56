#include "train/global_state.h"

#include <algorithm>

namespace mhmoe::train {
namespace {

struct Piece {
  int64_t global_offset, state_begin, count;
};

std::vector<Piece> pieces_of(const nn::ParameterStore& parameters) {
  std::vector<Piece> pieces;
  for (const nn::ParameterStore::OwnedPiece& piece : parameters.owned_pieces()) {
    pieces.push_back({piece.global_offset, piece.state_begin, piece.count});
  }
  return pieces;
}

void place(std::vector<float>& global, const std::vector<Piece>& pieces, const std::vector<float>& owned) {
  for (const Piece& piece : pieces) {
    std::copy_n(owned.data() + piece.state_begin, piece.count, global.data() + piece.global_offset);
  }
}

template <class T>
void send_vector(Job& job, const std::vector<T>& values) {
  const auto count = static_cast<int64_t>(values.size());
  job.send(&count, sizeof(count), 0);
  job.send(values.data(), values.size() * sizeof(T), 0);
}

template <class T>
std::vector<T> receive_vector(Job& job, int from) {
  int64_t count = 0;
  job.receive(&count, sizeof(count), from);
  std::vector<T> values(static_cast<size_t>(count));
  job.receive(values.data(), values.size() * sizeof(T), from);
  return values;
}

}  // namespace

std::vector<float> gather_global(Job& job, const nn::ParameterStore& parameters, const std::vector<float>& owned) {
  const std::vector<Piece> pieces = pieces_of(parameters);
  if (job.rank() != 0) {
    send_vector(job, pieces);
    send_vector(job, owned);
    return {};
  }
  std::vector<float> global(static_cast<size_t>(parameters.parameter_count()));
  place(global, pieces, owned);
  for (int rank = 1; rank < job.size(); ++rank) {
    const std::vector<Piece> theirs = receive_vector<Piece>(job, rank);
    place(global, theirs, receive_vector<float>(job, rank));
  }
  return global;
}

std::vector<float> download_masters(Context& ctx, const nn::ParameterStore& parameters) {
  std::vector<float> owned(static_cast<size_t>(parameters.owned_count()));
  for (const nn::Bucket& bucket : parameters.buckets()) {
    ctx.download(owned.data() + bucket.state_begin, bucket.owned_master);
  }
  return owned;
}

}  // namespace mhmoe::train
