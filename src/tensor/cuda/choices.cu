#include <algorithm>
#include <cmath>

#include "tensor/cuda/kernels.h"
#include "tensor/cuda/tokens.cuh"

namespace switchyard::cuda {
namespace {

// Calls f(i) for i in [0, items), over the whole grid.
template <class F>
__device__ void for_each_item(std::int64_t items, F f) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < items; i += stride) f(i);
}

__global__ void choose_kernel(float* weight_TK, const int* expert_TK, const float* p_TE, std::int64_t count,
                              int choices, int experts, bool renormalise) {
  for_each_item(count, [=](std::int64_t i) {
    const std::int64_t t = i / choices;
    const float* const p = p_TE + t * experts;
    float sum = 1;
    if (renormalise) {
      sum = 0;
      for (int k = 0; k < choices; ++k) sum += p[expert_TK[t * choices + k]];
    }
    weight_TK[i] = p[expert_TK[i]] / sum;
  });
}

// One group's scores: bias_E may be null.
struct GroupScores {
  const float *p, *bias;
  int members;

  __device__ float operator()(int i) const { return bias ? p[i] + bias[i] : p[i]; }
  __device__ float sum_of_best(int best) const {
    unsigned long long last = ~0ull;
    float sum = 0;
    for (int n = 0; n < best; ++n) {
      unsigned long long next = 0;
      for (int i = 0; i < members; ++i)
        if (const unsigned long long rank = rank_of((*this)(i), i); rank < last && rank > next) next = rank;
      last = next;
      sum += (*this)(index_of(last));
    }
    return sum;
  }
};

// A thread scores one token's group, and counts the groups before it.
__global__ void selection_scores_kernel(float* score_TE, const float* p_TE, const float* bias_E, std::int64_t count,
                                        int experts, int groups, int met, int best) {
  const int members = experts / groups;
  for_each_item(count, [=](std::int64_t i) {
    const std::int64_t t = i / groups;
    const auto scores = [=](int d) {
      return GroupScores{p_TE + t * experts + d * members, bias_E ? bias_E + d * members : nullptr, members};
    };
    const int d = int(i % groups);
    int before = 0;
    if (met < groups) {
      const unsigned long long mine = rank_of(scores(d).sum_of_best(best), d);
      for (int other = 0; other < groups; ++other)
        before += other != d && rank_of(scores(other).sum_of_best(best), other) > mine;
    }
    for (int e = 0; e < members; ++e) score_TE[t * experts + d * members + e] = before < met ? scores(d)(e) : -INFINITY;
  });
}

__global__ void thin_kernel(int* expert_TK, const float* weight_TK, const float* random_TK, float threshold,
                            std::int64_t count, int choices) {
  for_each_item(count, [=](std::int64_t i) {
    if (i % choices > 0 && !(weight_TK[i] > threshold * random_TK[i])) expert_TK[i] = -1;
  });
}

__global__ void count_meetings_kernel(int* met_GD, const int* expert_TK, std::int64_t tokens, int choices, int blocks,
                                      int members, std::int64_t group) {
  for_each_item(tokens, [=](std::int64_t t) {
    const int* const chosen = expert_TK + t * choices;
    for (int k = 0; k < choices; ++k) {
      bool is_first = chosen[k] >= 0;
      for (int j = 0; j < k; ++j) is_first = is_first && (chosen[j] < 0 || chosen[j] / members != chosen[k] / members);
      if (is_first) atomicAdd(&met_GD[t / group * blocks + chosen[k] / members], 1);
    }
  });
}

__global__ void adjust_bias_kernel(float* bias_E, const float* count_E, int experts, float rate) {
  SharedMemory shared;
  const auto parts = shared.take<double>(kThreads);
  double all = 0;
  for (int e = int(threadIdx.x); e < experts; e += kThreads) all += count_E[e];
  parts[int(threadIdx.x)] = all;
  __syncthreads();
  all = 0;
  for (int i = 0; i < kThreads; ++i) all += parts[i];
  for (int e = int(threadIdx.x); e < experts; e += kThreads) {
    const double missing = all - double(experts) * count_E[e];
    bias_E[e] += missing > 0 ? rate : missing < 0 ? -rate : 0;
  }
}

// The least of the `kept` largest of a block's `count` keys, which all differ: its bits from the highest on.
__device__ unsigned long long least_kept(const unsigned long long* keys, int count, int kept, Shared<int> tally) {
  if (kept == count) return 0;
  if (kept == 0) return ~0ull;
  unsigned long long least = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const unsigned long long candidate = least | 1ull << bit;
    if (threadIdx.x == 0) tally[0] = 0;
    __syncthreads();
    int above = 0;
    for (int i = int(threadIdx.x); i < count; i += kThreads) above += keys[i] >= candidate;
    if (above > 0) atomicAdd(&tally[0], above);
    __syncthreads();
    if (tally[0] >= kept) least = candidate;
    __syncthreads();
  }
  return least;
}

// One block a group and expert, or `members` experts, collects the keys of those that chose it, in any order, and keeps
// the largest. A token has at most `most` of them in a pass.
__global__ void admit_by_priority_kernel(int* slot_TK, const int* expert_TK, const float* score_TK,
                                         unsigned long long* keys, int choices, int scores, int members, int most,
                                         std::int64_t group, std::int64_t capacity, int passes) {
  SharedMemory shared;
  const auto tally = shared.take<int>(1), found = shared.take<int>(1);
  const int e = int(blockIdx.y), width = choices / passes;
  const std::int64_t begin = blockIdx.x * group;
  keys += (std::int64_t{blockIdx.x} * gridDim.y + e) * group * most;
  int room = int(capacity);
  for (int pass = 0; pass < passes; ++pass) {
    if (threadIdx.x == 0) found[0] = 0;
    __syncthreads();
    for (std::int64_t i = threadIdx.x; i < group * width; i += kThreads) {
      const std::int64_t t = i / width, place = t * choices + pass * width + i % width;
      const int k = int(place % choices), expert = expert_TK[begin * choices + place];
      if (expert < 0 && e == 0) slot_TK[begin * choices + place] = -1;
      if (expert >= 0 && expert / members == e)
        keys[atomicAdd(&found[0], 1)] = rank_of(score_TK[(begin + t) * scores + min(k, scores - 1)], int(place));
    }
    __syncthreads();
    const int count = found[0], kept = min(room, count);
    const unsigned long long least = least_kept(keys, count, kept, tally);
    for (int i = int(threadIdx.x); i < count; i += kThreads)
      slot_TK[begin * choices + index_of(keys[i])] = keys[i] >= least ? 0 : -1;
    room -= kept;
    __syncthreads();
  }
}

// entropy log sum_i e^(f(i) / entropy) for i in [0, count), over the lanes of a warp or, with one lane, by a thread.
template <int lanes, class F>
__device__ float soft_max(std::int64_t count, float entropy, F f) {
  const int lane = lanes == 1 ? 0 : lane_id();
  float most = -INFINITY, sum = 0;
  for (std::int64_t i = lane; i < count; i += lanes) most = fmaxf(most, f(i));
  if (lanes > 1) most = lanes_max(most, lanes);
  for (std::int64_t i = lane; i < count; i += lanes) sum += expf((f(i) - most) / entropy);
  if (lanes > 1) sum = lanes_sum(sum, lanes);
  return most + entropy * logf(sum);
}

// One block a routing group; cpu/choices.cpp says what a round is. A warp sums up an expert, a thread a token.
__global__ void capped_scores_kernel(float* score_TE, const float* p_TE, float* factors, int experts,
                                     std::int64_t group, float log_capacity, float log_cap, ExpertCap cap) {
  const std::int64_t elements = group * experts;
  float* const score = score_TE + blockIdx.x * elements;
  float* const by_expert = factors + blockIdx.x * (experts + group);
  float* const by_token = by_expert + experts;
  for (std::int64_t i = threadIdx.x; i < elements; i += kThreads) score[i] = p_TE[blockIdx.x * elements + i];
  for (std::int64_t t = threadIdx.x; t < group; t += kThreads) by_token[t] = 0;
  __syncthreads();
  for (int round = 0; round < cap.rounds; ++round) {
    const float entropy = cap.entropy_in(round);
    for (int e = int(threadIdx.x) / kWarpSize; e < experts; e += kThreads / kWarpSize) {
      const float all =
          soft_max<kWarpSize>(group, entropy, [=](std::int64_t t) { return fminf(0.0f, score[t * experts + e]); });
      if (lane_id() == 0) by_expert[e] = entropy * log_capacity - all;
    }
    __syncthreads();
    for (std::int64_t t = threadIdx.x; t < group; t += kThreads) {
      float* const row = score + t * experts;
      const float before = by_token[t];
      const float all =
          soft_max<1>(experts, entropy, [=](std::int64_t e) { return fminf(0.0f, row[e]) + by_expert[e]; });
      const float now = fminf(0.0f, entropy * log_cap - all + before);
      by_token[t] = now;
      for (int e = 0; e < experts; ++e) row[e] += by_expert[e] + (now - before);
    }
    __syncthreads();
  }
}

}  // namespace

void choose(Tensor& weight_TK, const Tensor& expert_TK, const Tensor& p_TE, Renormalise renormalise) {
  Context& on = context(p_TE.device());
  launch(on, "choose", choose_kernel, grid_for(on, weight_TK.numel(), kThreads), kThreads, 0, ptr<float>(weight_TK),
         ptr<std::int32_t>(expert_TK), ptr<float>(p_TE), weight_TK.numel(), weight_TK.dim(1), p_TE.dim(1),
         renormalise == Renormalise::yes);
}

void selection_scores(Tensor& score_TE, const Tensor& p_TE, const Tensor& bias_E, GroupLimit limit) {
  Context& on = context(p_TE.device());
  const std::int64_t count = p_TE.dim(0) * limit.groups;
  launch(on, "selection_scores", selection_scores_kernel, grid_for(on, count, kThreads), kThreads, 0,
         ptr<float>(score_TE), ptr<float>(p_TE), bias_E ? ptr<float>(bias_E) : nullptr, count, p_TE.dim(1),
         limit.groups, limit.met, limit.best);
}

void thin_choices(Tensor& expert_TK, const Tensor& weight_TK, const Tensor& random_TK, float threshold) {
  Context& on = context(expert_TK.device());
  launch(on, "thin_choices", thin_kernel, grid_for(on, expert_TK.numel(), kThreads), kThreads, 0,
         ptr<std::int32_t>(expert_TK), ptr<float>(weight_TK), ptr<float>(random_TK), threshold, expert_TK.numel(),
         expert_TK.dim(1));
}

void count_meetings(Tensor& met_GD, const Tensor& expert_TK, Placement placement) {
  Context& on = context(met_GD.device());
  const std::int64_t tokens = expert_TK.dim(0), blocks = met_GD.dim(1);
  if (met_GD.numel() > 0) CUDA_CHECK(cudaMemsetAsync(met_GD.bytes(), 0, met_GD.size_in_bytes(), on.stream()));
  launch(on, "count_meetings", count_meetings_kernel, grid_for(on, tokens, kThreads), kThreads, 0,
         ptr<std::int32_t>(met_GD), ptr<std::int32_t>(expert_TK), tokens, expert_TK.dim(1), blocks,
         placement.experts / blocks, placement.group);
}

void adjust_bias(Tensor& bias_E, const Tensor& count_E, float rate) {
  Context& on = context(bias_E.device());
  launch(on, "adjust_bias", adjust_bias_kernel, 1, kThreads, shared_bytes_of<double>(kThreads), ptr<float>(bias_E),
         ptr<float>(count_E), bias_E.numel(), rate);
}

void admit_by_priority(Tensor& slot_TK, const Tensor& expert_TK, const Tensor& score_TK, Placement placement,
                       Priority priority) {
  Context& on = context(slot_TK.device());
  const std::int64_t tokens = expert_TK.dim(0), choices = expert_TK.dim(1);
  if (tokens == 0) return;
  const std::int64_t passes = priority == Priority::score ? 1 : choices,
                     most = std::min(placement.members, choices / passes),
                     blocks = placement.experts / placement.members;
  launch(on, "admit_by_priority", admit_by_priority_kernel, dim3(unsigned(tokens / placement.group), unsigned(blocks)),
         kThreads, shared_bytes_of<int>(1) + shared_bytes_of<int>(1), ptr<std::int32_t>(slot_TK),
         ptr<std::int32_t>(expert_TK), ptr<float>(score_TK), on.scratch<unsigned long long>(tokens * blocks * most),
         choices, score_TK.dim(1), placement.members, most, placement.group, placement.capacity, passes);
}

void capped_scores(Tensor& score_TE, const Tensor& p_TE, Placement placement, ExpertCap cap) {
  Context& on = context(p_TE.device());
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  if (tokens == 0) return;
  const std::int64_t groups = tokens / placement.group;
  launch(on, "capped_scores", capped_scores_kernel, unsigned(groups), kThreads, 0, ptr<float>(score_TE),
         ptr<float>(p_TE), on.scratch<float>(groups * (experts + placement.group)), experts, placement.group,
         std::log(float(placement.capacity)), std::log(cap.experts), cap);
}

}  // namespace switchyard::cuda
