#include "tensor/cuda/grouping.cuh"
#include "tensor/cuda/kernels.h"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kCountedTokens = 1024;  // that one block counts

// One block counts part of a group's choices for a tile of the keys (choice, expert); parts meet in integer additions.
__global__ void count_choices_kernel(int* chosen_GKE, const int* expert_TK, std::int64_t tokens, int choices,
                                     int experts, std::int64_t group, std::int64_t parts) {
  SharedMemory shared;
  const int keys = choices * experts, first = int(blockIdx.y) * kKeyTile, tile = min(keys - first, kKeyTile);
  const auto counts = shared.take<int>(tile);
  for (int k = int(threadIdx.x); k < tile; k += kThreads) counts[k] = 0;
  __syncthreads();
  const std::int64_t g = blockIdx.x / parts, end_of_group = min((g + 1) * group, tokens);
  const std::int64_t begin = g * group + blockIdx.x % parts * kCountedTokens;
  const int items = int(min(end_of_group - begin, kCountedTokens)) * choices;
  for (int i = int(threadIdx.x); i < items; i += kThreads)
    if (const int e = expert_TK[begin * choices + i], k = i % choices * experts + e - first;
        e >= 0 && 0 <= k && k < tile)
      atomicAdd(&counts[k], 1);
  __syncthreads();
  for (int k = int(threadIdx.x); k < tile; k += kThreads)
    if (counts[k] > 0) atomicAdd(&chosen_GKE[g * keys + first + k], counts[k]);
}

// One block a group and tile of experts, choice by choice: slot is 0 where the expert still has room, else -1. No tile
// has what is no choice: the first block answers for that.
__global__ void __launch_bounds__(1024, 1) admit_kernel(int* slot_TK, const int* expert_TK, int choices, int experts,
                                                        std::int64_t group, std::int64_t capacity) {
  SharedMemory shared;
  const int first = int(blockIdx.y) * kKeyTile, tile = min(experts - first, kKeyTile);
  const auto taken = shared.take<int>(tile), next = shared.take<int>(int(blockDim.x) / kWarpSize * tile);
  for (int e = int(threadIdx.x); e < tile; e += int(blockDim.x)) taken[e] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * group;
  if (blockIdx.y == 0)
    for (std::int64_t i = begin * choices + threadIdx.x; i < (begin + group) * choices; i += blockDim.x)
      if (expert_TK[i] < 0) slot_TK[i] = -1;
  for (int k = 0; k < choices; ++k)
    visit_in_order(
        taken, next, tile, begin, begin + group, [=](std::int64_t t) { return expert_TK[t * choices + k] - first; },
        [=](std::int64_t t, int rank) { slot_TK[t * choices + k] = rank < capacity ? 0 : -1; });
}

// Part and expert of a choice that was not dropped.
struct KeyOfKept {
  const int *expert, *slot;  // no slot: nothing was dropped
  int part, experts;         // choices of a part

  // Where keys fill several tiles, another block may have given the choice its row, which keeps the sign.
  __device__ int operator()(std::int64_t choice) const {
    return slot && slot[choice] < 0 ? -1 : int(choice) / part * experts + expert[choice];
  }
};

struct TakeRow {
  int *slot, *token, choices;

  __device__ void operator()(std::int64_t choice, int row) const {
    slot[choice] = row;
    token[row] = int(choice / choices);
  }
};

void set_bytes(Context& on, Tensor& x, int value) {
  if (x.numel() > 0) CUDA_CHECK(cudaMemsetAsync(x.bytes(), value, x.size_in_bytes(), on.stream()));
}

}  // namespace

void count_choices(Tensor& chosen_GKE, const Tensor& expert_TK, Placement placement) {
  Context& on = context(chosen_GKE.device());
  const std::int64_t groups = chosen_GKE.dim(0), keys = chosen_GKE.dim(1) * placement.experts,
                     parts = ceil_div(std::min(placement.group, expert_TK.dim(0)), kCountedTokens);
  set_bytes(on, chosen_GKE, 0);
  launch(on, "count_choices", count_choices_kernel,
         dim3(unsigned(groups * parts), unsigned(ceil_div(keys, std::int64_t{kKeyTile}))), kThreads,
         shared_bytes_of<int>(std::min<std::int64_t>(keys, kKeyTile)), ptr<std::int32_t>(chosen_GKE),
         ptr<std::int32_t>(expert_TK), expert_TK.dim(0), chosen_GKE.dim(1), placement.experts, placement.group, parts);
}

// Admission needs the choices of a whole group in order, which one block visits; a group is a sequence or part of one.
void admit(Tensor& slot_TK, const Tensor& expert_TK, Placement placement) {
  Context& on = context(slot_TK.device());
  const std::int64_t tokens = expert_TK.dim(0), choices = expert_TK.dim(1), experts = placement.experts;
  if (tokens == 0) return;
  constexpr std::int64_t kTokensOfWarp = 64, kMostWarps = 32;
  const std::int64_t warps = std::min(ceil_div(placement.group, kTokensOfWarp), kMostWarps),
                     tile = std::min<std::int64_t>(experts, kKeyTile);
  launch(on, "admit", admit_kernel,
         dim3(unsigned(tokens / placement.group), unsigned(ceil_div(experts, std::int64_t{kKeyTile}))),
         unsigned(warps * kWarpSize), shared_bytes_of<int>(tile) + shared_bytes_of<int>(warps * tile),
         ptr<std::int32_t>(slot_TK), ptr<std::int32_t>(expert_TK), choices, experts, placement.group,
         placement.capacity);
}

void place(Tensor& slot_TK, Tensor& token_N, Tensor& count_PE, const Tensor& expert_TK, Placement placement) {
  Context& on = context(slot_TK.device());
  const std::int64_t tokens = expert_TK.dim(0), choices = expert_TK.dim(1), experts = placement.experts;
  const std::int32_t* expert = ptr<std::int32_t>(expert_TK);
  std::int32_t* slot = ptr<std::int32_t>(slot_TK);
  const Chunks chunks(tokens * choices, placement.parts * experts);

  set_bytes(on, token_N, 0xff);  // -1
  group_stably(
      on, "place", ptr<std::int32_t>(count_PE), on.scratch<int>(chunks.scratch()), chunks,
      KeyOfKept{expert, placement.capacity > 0 ? slot : nullptr, int(tokens * choices / placement.parts), int(experts)},
      int(placement.owned(tokens)), TakeRow{slot, ptr<std::int32_t>(token_N), int(choices)});
}

}  // namespace switchyard::cuda
