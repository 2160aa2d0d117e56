#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/partials.h"
#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"
#include "ops/routing.h"

// Queues fill in the order of *positions*: position j * S + s is row s's j-th choice. Positions are cut into chunks.
// One warp walks a chunk and numbers its assignments expert by expert; the chunks' counts become sums over all chunks
// before; then every assignment learns its slot by itself. Integer sums only, so that nothing depends on timing.
namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int64_t kFewestPositions = 512;  // a chunk's
constexpr int64_t kMostChunks = 1024;

// At most 2^31 assignments (ops/routing.cc), so that unsigned arithmetic holds all of them.
struct Positions {
  uint32_t rows, k, experts, per_chunk, chunks;
  __device__ uint32_t count() const { return rows * k; }
  __device__ uint32_t assignment_at(uint32_t position) const { return position % rows * k + position / rows; }
  __device__ uint32_t position_of(uint32_t assignment) const { return assignment % k * rows + assignment / k; }
};

// count: [chunks, E], zero before, then each chunk's assignments an expert. slot: the number of assignments to the same
// expert that come before in the chunk. Lanes go through 32 positions at a time; the first of those that want the same
// expert moves its counter on for all of them.
__global__ void count_chunk_kernel(int32_t* count, int32_t* slot, const int32_t* expert_index, Positions positions) {
  const uint32_t chunk = blockIdx.x * kWarps + threadIdx.x / kWarpSize;
  if (chunk >= positions.chunks) return;
  const unsigned lane = threadIdx.x % kWarpSize;
  const uint32_t begin = chunk * positions.per_chunk, left = positions.count() - begin;
  const uint32_t end = begin + (left < positions.per_chunk ? left : positions.per_chunk);
  count += int64_t{chunk} * positions.experts;
  for (uint32_t first = begin; first < end; first += kWarpSize) {
    const bool valid = first + lane < end;
    const uint32_t assignment = valid ? positions.assignment_at(first + lane) : 0;
    const int32_t expert = valid ? expert_index[assignment] : -1;
    const unsigned equal = __match_any_sync(kFullWarp, expert);
    const int before = __popc(equal & ((1u << lane) - 1));
    int32_t counted = 0;
    if (valid && before == 0) {
      counted = count[expert];
      count[expert] = counted + __popc(equal);
    }
    counted = __shfl_sync(kFullWarp, counted, __ffs(static_cast<int>(equal)) - 1);
    if (valid) slot[assignment] = counted + before;
    __syncwarp();  // the counters' next readers are other lanes
  }
}

// Puts the number of assignments to the same expert in all chunks before in the place of each chunk's own; ends with
// load, and with begin and rows where queues have a capacity.
struct Queues {
  int32_t *row_assignment, *begin, *rows, *load;
  int64_t capacity;
};

__device__ void finish_queue(const Queues& queues, int64_t expert, int32_t load) {
  queues.load[expert] = load;
  if (queues.capacity == 0) return;
  queues.rows[expert] = static_cast<int32_t>(load < queues.capacity ? load : queues.capacity);
  queues.begin[expert] = static_cast<int32_t>(expert * queues.capacity);
}

__global__ void add_chunks_kernel(int32_t* count, Queues queues, int64_t experts, int64_t chunks) {
  __shared__ int32_t segment_sum[kMostSegments][kTile];
  const int64_t tile = int64_t{blockIdx.x} * kTile, expert = tile + threadIdx.x;
  const auto [begin, end] = segment_of(chunks);
  int32_t sum = 0;
  if (expert < experts) {
    for (int64_t chunk = begin; chunk < end; ++chunk) sum += count[chunk * experts + expert];
  }
  segment_sum[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  int32_t before = 0, load = 0;
  for (unsigned s = 0; s < blockDim.y; ++s) {
    if (s < threadIdx.y) before += segment_sum[s][threadIdx.x];
    load += segment_sum[s][threadIdx.x];
  }
  if (expert < experts) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int32_t own = count[chunk * experts + expert];
      count[chunk * experts + expert] = before;
      before += own;
    }
    if (threadIdx.y == 0) finish_queue(queues, expert, load);
  }
  // Rows behind a queue's end are empty; each warp of the block has every blockDim.y-th expert's.
  for (int i = static_cast<int>(threadIdx.y); i < kTile && tile + i < experts; i += static_cast<int>(blockDim.y)) {
    const int64_t used = __shfl_sync(kFullWarp, load, i);
    int32_t* queue = queues.row_assignment + (tile + i) * queues.capacity;
    for (int64_t row = used + threadIdx.x; row < queues.capacity; row += kTile) queue[row] = -1;
  }
}

// Without a capacity queues follow each other without gaps. One block; each thread has neighbouring experts.
__global__ void join_queues_kernel(Queues queues, int64_t experts) {
  __shared__ int32_t thread_sum[kThreads];
  const int64_t share = (experts + kThreads - 1) / kThreads;
  const int64_t begin = share * threadIdx.x;
  const int64_t end = begin + share < experts ? begin + share : experts;
  int32_t sum = 0;
  for (int64_t expert = begin; expert < end; ++expert) sum += queues.load[expert];
  thread_sum[threadIdx.x] = sum;
  __syncthreads();
  int32_t next = 0;
  for (unsigned t = 0; t < threadIdx.x; ++t) next += thread_sum[t];
  for (int64_t expert = begin; expert < end; ++expert) {
    const int32_t load = queues.load[expert];
    queues.begin[expert] = next;
    queues.rows[expert] = load;
    next += load;
  }
}

// One thread an assignment. before: [chunks, E].
__global__ void place_kernel(int32_t* slot, int32_t* row_of, const int32_t* before, const int32_t* expert_index,
                             Queues queues, Positions positions) {
  const uint32_t assignment = blockIdx.x * kThreads + threadIdx.x;
  if (assignment >= positions.count()) return;
  const int32_t expert = expert_index[assignment];
  const int64_t chunk = positions.position_of(assignment) / positions.per_chunk;
  const int32_t own = slot[assignment] + before[chunk * positions.experts + expert];
  const bool kept = queues.capacity == 0 || own < queues.capacity;
  const int32_t row = kept ? queues.begin[expert] + own : -1;
  slot[assignment] = own;
  row_of[assignment] = row;
  if (kept) queues.row_assignment[row] = static_cast<int32_t>(assignment);
}

Positions positions_of(const ops::AssignSlots& args) {
  const int64_t rows = args.expert_index.rows(), k = args.expert_index.cols();
  const int64_t shared = (rows * k + kMostChunks - 1) / kMostChunks;
  const int64_t per_chunk = std::max<int64_t>(kFewestPositions, (shared + kWarpSize - 1) / kWarpSize * kWarpSize);
  const auto narrow = [](int64_t value) { return static_cast<uint32_t>(value); };
  return {narrow(rows), narrow(k), narrow(args.load.count()), narrow(per_chunk), block_count(rows * k, per_chunk)};
}

// i32 [chunks, E]
Tensor allocate_counts(Context& ctx, const Positions& positions) {
  return ctx.step().allocate("assign_slots_counts", DType::kI32, {positions.chunks, positions.experts});
}

}  // namespace

void assign_slots_scratch(Context& ctx, const ops::AssignSlots& args) {
  allocate_counts(ctx, positions_of(args));
}

void assign_slots(Context& ctx, const ops::AssignSlots& args) {
  const Positions positions = positions_of(args);
  const ArenaScope scope(ctx.step());
  const Tensor counts = allocate_counts(ctx, positions);
  ctx.fill_zero(counts);
  const Queues queues = {elements<int32_t>(args.row_assignment), elements<int32_t>(args.begin),
                         elements<int32_t>(args.rows), elements<int32_t>(args.load), args.capacity};
  const auto stream = stream_of(ctx);
  const auto* expert_index = elements<const int32_t>(args.expert_index);
  launch({.grid = block_count(positions.chunks, kWarps), .block = kThreads, .stream = stream}, count_chunk_kernel,
         elements<int32_t>(counts), elements<int32_t>(args.slot), expert_index, positions);
  launch({.grid = block_count(positions.experts, kTile), .block = tile_block(positions.chunks), .stream = stream},
         add_chunks_kernel, elements<int32_t>(counts), queues, positions.experts, positions.chunks);
  if (args.capacity == 0) {
    launch({.grid = 1, .block = kThreads, .stream = stream}, join_queues_kernel, queues, positions.experts);
  }
  launch({.grid = block_count(args.slot.count(), kThreads), .block = kThreads, .stream = stream}, place_kernel,
         elements<int32_t>(args.slot), elements<int32_t>(args.row_of), elements<const int32_t>(counts), expert_index,
         queues, positions);
}

}  // namespace mhmoe::cuda
