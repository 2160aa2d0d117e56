// Which rows of which expert a block works on, found on the device: the host knows no counts.
#pragma once

#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"
#include "ops/grouped_matmul.h"

namespace mhmoe::cuda {

// ops::RowGroups for a kernel.
struct DeviceGroups {
  const int32_t* begin;
  const int32_t* rows;
  int experts;
  int64_t capacity;
};

inline DeviceGroups device_groups(const ops::RowGroups& groups) {
  return {elements<const int32_t>(groups.begin), elements<const int32_t>(groups.rows),
          static_cast<int>(groups.rows.count()), groups.capacity};
}

// At most this many tiles of kTileRows rows are needed: with a capacity those of full experts, else those of
// `buffer_rows` rows with one tile begun in vain for every expert.
template <int kTileRows>
int64_t row_tile_count(const ops::RowGroups& groups, int64_t buffer_rows) {
  const int64_t experts = groups.rows.count();
  if (groups.capacity > 0) return experts * ((groups.capacity + kTileRows - 1) / kTileRows);
  return (buffer_rows + experts * (kTileRows - 1)) / kTileRows;
}

struct RowTile {
  int expert;
  int64_t begin;  // row of the buffer
  int rows;       // the expert's: at most the tile's
  int written;    // rows that a result gets: with a capacity also those that no expert has. 0: nothing to do
};

template <int kTileRows>
__device__ RowTile row_tile_of(const DeviceGroups& groups, int expert, int64_t tile_of_expert) {
  const int64_t done = tile_of_expert * kTileRows, left = groups.rows[expert] - done;
  const int rows = left < 0 ? 0 : left < kTileRows ? static_cast<int>(left) : kTileRows;
  if (groups.capacity == 0) return {expert, groups.begin[expert] + done, rows, rows};
  const int64_t room = groups.capacity - done;
  return {expert, groups.begin[expert] + done, rows, room < kTileRows ? static_cast<int>(room) : kTileRows};
}

// The tile of this number. With a capacity every expert has as many tiles; else they follow each other, and each warp
// looks for the expert: a lane counts the tiles of some experts in turn, and the counts are summed up over the lanes.
// All lanes must call, with the same number.
template <int kTileRows>
__device__ RowTile find_row_tile(const DeviceGroups& groups, int64_t number) {
  if (groups.capacity > 0) {
    const int64_t tiles = (groups.capacity + kTileRows - 1) / kTileRows;
    return row_tile_of<kTileRows>(groups, static_cast<int>(number / tiles), number % tiles);
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int experts_per_lane = (groups.experts + kWarpSize - 1) / kWarpSize;
  const int first = lane * experts_per_lane;
  const int last = first + experts_per_lane < groups.experts ? first + experts_per_lane : groups.experts;
  const auto tiles_of = [&](int expert) { return (groups.rows[expert] + kTileRows - 1) / kTileRows; };
  int own = 0;
  for (int e = first; e < last; ++e) own += tiles_of(e);
  int after = own;  // tiles of this lane's experts and all before them
  for (int delta = 1; delta < kWarpSize; delta *= 2) {
    const int other = __shfl_up_sync(kFullWarp, after, delta);
    if (lane >= delta) after += other;
  }
  const unsigned found = __ballot_sync(kFullWarp, after > number);
  if (found == 0) return {0, 0, 0, 0};
  const int owner = __ffs(static_cast<int>(found)) - 1;
  int expert = first, tile = static_cast<int>(number) - (after - own);
  if (lane == owner) {
    for (int tiles = tiles_of(expert); tile >= tiles; tiles = tiles_of(++expert)) tile -= tiles;
  }
  expert = __shfl_sync(kFullWarp, expert, owner);
  tile = __shfl_sync(kFullWarp, tile, owner);
  return row_tile_of<kTileRows>(groups, expert, tile);
}

}  // namespace mhmoe::cuda
