#pragma once

#include <algorithm>

#include "tensor/cuda/block.cuh"

// Stable grouping: items 0 … n-1, each with a key or with none (-1), get rows such that keys ascend and the items of
// one key keep their order. A counting sort: every chunk of items counts its keys, sums down the chunks tell where each
// chunk's share of a key begins, and every chunk hands out its rows.
namespace switchyard::cuda {

constexpr int kGroupingThreads = 256;
constexpr int kKeyTile = 1024;  // keys that one block handles; a grid's y counts tiles

// How many items one block of a grouping takes.
struct Chunks {
  std::int64_t items, size;
  int keys;

  Chunks(std::int64_t items, std::int64_t keys) : items(items), keys(int(keys)) {
    constexpr std::int64_t kSmallest = 1024, kMost = 1024;  // more would make the sums down the chunks long
    size = std::max({kSmallest, keys, ceil_div(items, kMost)});
  }
  int count() const { return int(ceil_div(items, size)); }
  int tile() const { return std::min(keys, kKeyTile); }
  dim3 grid() const { return dim3(unsigned(count()), unsigned(ceil_div(keys, kKeyTile))); }
  std::int64_t scratch() const { return std::int64_t{count()} * keys; }  // ints
};

// The sum of the x of the threads before this one; parts holds one int a warp.
__device__ inline int sum_before(int x, Shared<int> parts) {
  int inclusive = x;
  for (int step = 1; step < kWarpSize; step *= 2) {
    const int below = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane_id() >= step) inclusive += below;
  }
  if (lane_id() == kWarpSize - 1) parts[warp_id()] = inclusive;
  __syncthreads();
  int before = inclusive - x;
  for (int w = 0; w < warp_id(); ++w) before += parts[w];
  return before;
}

// Visits the items [begin, end) that have a key in [0, tile), each with start[key] + the number of such items of its
// key before it; start then ends behind the last. The warps take portions one after another: each counts its own, which
// tells where the next one's begin, and then goes over it 32 items at a time. A whole block calls, with next holding
// tile ints a warp; it may call again at once, because a warp only writes its own of them until all have counted.
template <class Key, class Visit>
__device__ void visit_in_order(Shared<int> start, Shared<int> next, int tile, std::int64_t begin, std::int64_t end,
                               Key key, Visit visit) {
  const int warps = int(blockDim.x) / kWarpSize, lane = lane_id();
  const std::int64_t portion = ceil_div(end - begin, std::int64_t{warps} * kWarpSize) * kWarpSize;
  const std::int64_t my_begin = begin + warp_id() * portion, my_end = min(my_begin + portion, end);
  const Shared<int> mine = next.from(warp_id() * tile);

  for (int k = lane; k < tile; k += kWarpSize) mine[k] = 0;
  __syncwarp();
  for (std::int64_t i = my_begin + lane; i < my_end; i += kWarpSize)
    if (const int k = key(i); 0 <= k && k < tile) atomicAdd(&mine[k], 1);
  __syncthreads();
  for (int k = int(threadIdx.x); k < tile; k += int(blockDim.x)) {
    int row = start[k];
    for (int w = 0; w < warps; ++w) {
      const int count = next[w * tile + k];
      next[w * tile + k] = row;
      row += count;
    }
    start[k] = row;
  }
  __syncthreads();
  for (std::int64_t first = my_begin; first < my_end; first += kWarpSize) {
    const std::int64_t i = first + lane;
    const int k = i < my_end ? key(i) : -1;
    const bool has_key = 0 <= k && k < tile;
    const unsigned same = __match_any_sync(kAllLanes, k);
    const int before = __popc(same & ((1u << lane) - 1));
    const int row = has_key ? mine[k] + before : 0;
    __syncwarp();
    if (has_key && before == 0) mine[k] += __popc(same);
    __syncwarp();
    if (has_key) visit(i, row);
  }
}

template <class Key>
__global__ void count_keys_kernel(int* table_CK, Key key, std::int64_t items, std::int64_t chunk, int keys) {
  SharedMemory shared;
  const int first = int(blockIdx.y) * kKeyTile, tile = min(keys - first, kKeyTile);
  const auto counts = shared.take<int>(tile);
  for (int k = int(threadIdx.x); k < tile; k += int(blockDim.x)) counts[k] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * chunk, end = min(begin + chunk, items);
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
    if (const int k = key(i) - first; 0 <= k && k < tile) atomicAdd(&counts[k], 1);
  __syncthreads();
  for (int k = int(threadIdx.x); k < tile; k += int(blockDim.x))
    table_CK[std::int64_t{blockIdx.x} * keys + first + k] = counts[k];
}

// Replaces each chunk's count of a key by the sum of those of the chunks before; totals go to total_K. A block takes 32
// keys, and thread (x, y) the y-th part of the chunks of key x.
static __global__ void __launch_bounds__(kWarpSize* kWarpSize)
    sum_chunks_kernel(int* table_CK, int* total_K, int chunks, int keys) {
  SharedMemory shared;
  const auto parts = shared.take<int>(kWarpSize * kWarpSize);
  constexpr int kAtOnce = 8;  // loads that do not wait for one another
  const int key = int(blockIdx.x * kWarpSize + threadIdx.x), each = ceil_div(chunks, kWarpSize);
  const int begin = min(int(threadIdx.y) * each, chunks), end = key < keys ? min(begin + each, chunks) : begin;
  int* const column = table_CK + key;

  int sum = 0;
#pragma unroll 8
  for (int c = begin; c < end; ++c) sum += column[std::int64_t{c} * keys];
  parts[int(threadIdx.y) * kWarpSize + int(threadIdx.x)] = sum;
  __syncthreads();
  int before = 0;
  for (int y = 0; y < int(threadIdx.y); ++y) before += parts[y * kWarpSize + int(threadIdx.x)];
  for (int c = begin; c < end; c += kAtOnce) {
    int count[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) count[j] = c + j < end ? column[std::int64_t{c + j} * keys] : 0;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (c + j < end) column[std::int64_t{c + j} * keys] = before;
      before += count[j];
    }
  }
  if (threadIdx.y == kWarpSize - 1 && key < keys) total_K[key] = before;
}

// Rows of a key begin at key * owned, or, where owned is 0, where those of the key before end.
template <class Key, class Visit>
__global__ void place_items_kernel(const int* table_CK, const int* total_K, Key key, Visit visit, std::int64_t items,
                                   std::int64_t chunk, int keys, int owned) {
  SharedMemory shared;
  const int first = int(blockIdx.y) * kKeyTile, tile = min(keys - first, kKeyTile), warps = int(blockDim.x) / kWarpSize;
  const auto start = shared.take<int>(tile), next = shared.take<int>(warps * tile), parts = shared.take<int>(warps);

  // Each thread adds up some neighbouring keys.
  const int last = first + tile, each = ceil_div(last, int(blockDim.x));
  const int begin = min(int(threadIdx.x) * each, last), end = min(begin + each, last);
  int sum = 0;
  if (owned == 0)
    for (int k = begin; k < end; ++k) sum += total_K[k];
  int before = sum_before(sum, parts);
  for (int k = begin; k < end; ++k) {
    if (k >= first) start[k - first] = (owned > 0 ? k * owned : before) + table_CK[std::int64_t{blockIdx.x} * keys + k];
    if (owned == 0) before += total_K[k];
  }
  __syncthreads();

  const std::int64_t item = blockIdx.x * chunk;
  visit_in_order(
      start, next, tile, item, min(item + chunk, items), [=](std::int64_t i) { return key(i) - first; }, visit);
}

// Calls visit(item, row) for each item that has a key and writes how many items each key has. table: chunks.scratch()
// ints.
template <class Key, class Visit>
void group_stably(Context& on, const char* name, int* total_K, int* table, Chunks chunks, Key key, int owned,
                  Visit visit) {
  constexpr int kWarps = kGroupingThreads / kWarpSize;
  const std::size_t tile_bytes = shared_bytes_of<int>(chunks.tile());
  launch(on, name, count_keys_kernel<Key>, chunks.grid(), kGroupingThreads, tile_bytes, table, key, chunks.items,
         chunks.size, chunks.keys);
  launch(on, name, sum_chunks_kernel, unsigned(ceil_div(chunks.keys, kWarpSize)), dim3(kWarpSize, kWarpSize),
         shared_bytes_of<int>(kWarpSize * kWarpSize), table, total_K, chunks.count(), chunks.keys);
  launch(on, name, place_items_kernel<Key, Visit>, chunks.grid(), kGroupingThreads,
         tile_bytes + shared_bytes_of<int>(std::int64_t{kWarps} * chunks.tile()) + shared_bytes_of<int>(kWarps), table,
         total_K, key, visit, chunks.items, chunks.size, chunks.keys, owned);
}

}  // namespace switchyard::cuda
