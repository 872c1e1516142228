#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// A number that is larger for a larger x; NaN stands below everything, and -0 is 0.
std::uint32_t ordered(float x) {
  if (std::isnan(x)) return 0;
  const auto bits = std::bit_cast<std::uint32_t>(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Scores of one token's groups of `members` experts.
float sum_of_best(const float* score, std::int64_t members, std::int64_t best, std::vector<float>& sorted) {
  sorted.assign(score, score + members);
  std::partial_sort(sorted.begin(), sorted.begin() + best, sorted.end(),
                    [](float a, float b) { return ordered(a) > ordered(b); });
  return std::accumulate(sorted.begin(), sorted.begin() + best, 0.0f);
}

}  // namespace

void choose(Tensor& weight_TK, const Tensor& expert_TK, const Tensor& p_TE, Renormalise renormalise) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), top_k = weight_TK.dim(1);
  const float* p = p_TE.data<float>();
  const std::int32_t* expert = expert_TK.data<std::int32_t>();
  float* weight = weight_TK.data<float>();
#pragma omp parallel for schedule(static) if (tokens * top_k > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    float* w = weight + t * top_k;
    float sum = 0;
    for (std::int64_t k = 0; k < top_k; ++k) sum += w[k] = p[t * experts + expert[t * top_k + k]];
    if (renormalise == Renormalise::yes)
      for (std::int64_t k = 0; k < top_k; ++k) w[k] /= sum;
  }
}

void selection_scores(Tensor& score_TE, const Tensor& p_TE, const Tensor& bias_E, GroupLimit limit) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), members = experts / limit.groups;
  const float *probability = p_TE.data<float>(), *bias = bias_E ? bias_E.data<float>() : nullptr;
  float* out = score_TE.data<float>();
#pragma omp parallel if (tokens * experts > kParallelElements)
  {
    std::vector<float> sorted, sums(static_cast<std::size_t>(limit.groups));
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < tokens; ++t) {
      const float* p = probability + t * experts;
      float* score = out + t * experts;
      for (std::int64_t e = 0; e < experts; ++e) score[e] = bias ? p[e] + bias[e] : p[e];
      if (limit.met == limit.groups) continue;
      for (std::size_t d = 0; d < sums.size(); ++d)
        sums[d] = sum_of_best(score + static_cast<std::int64_t>(d) * members, members, limit.best, sorted);
      for (std::size_t d = 0; d < sums.size(); ++d) {
        std::int64_t above = 0;
        for (std::size_t other = 0; other < sums.size(); ++other)
          above += ordered(sums[other]) > ordered(sums[d]) || (sums[other] == sums[d] && other < d);
        if (above >= limit.met)
          std::fill_n(score + static_cast<std::int64_t>(d) * members, members, -std::numeric_limits<float>::infinity());
      }
    }
  }
}

void thin_choices(Tensor& expert_TK, const Tensor& weight_TK, const Tensor& random_TK, float threshold) {
  const std::int64_t tokens = expert_TK.dim(0), top_k = expert_TK.dim(1);
  const float *weight = weight_TK.data<float>(), *random = random_TK.data<float>();
  std::int32_t* expert = expert_TK.data<std::int32_t>();
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t i = t * top_k + 1; i < (t + 1) * top_k; ++i)
      if (!(weight[i] > threshold * random[i])) expert[i] = -1;
}

void count_meetings(Tensor& met_GD, const Tensor& expert_TK, Placement placement) {
  const std::int64_t blocks = met_GD.dim(1), tokens = expert_TK.dim(0), top_k = expert_TK.dim(1);
  const std::int64_t members = placement.experts / blocks;
  const std::int32_t* expert = expert_TK.data<std::int32_t>();
  std::int32_t* met = met_GD.data<std::int32_t>();
  std::fill_n(met, met_GD.numel(), 0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int32_t* chosen = expert + t * top_k;
    for (std::int64_t k = 0; k < top_k; ++k) {
      const auto is_in_its_block = [&](std::int32_t e) { return e >= 0 && e / members == chosen[k] / members; };
      if (chosen[k] >= 0 && std::none_of(chosen, chosen + k, is_in_its_block))
        ++met[t / placement.group * blocks + chosen[k] / members];
    }
  }
}

void adjust_bias(Tensor& bias_E, const Tensor& count_E, float rate) {
  const std::int64_t experts = bias_E.numel();
  const float* count = count_E.data<float>();
  float* bias = bias_E.data<float>();
  const double all = std::accumulate(count, count + experts, 0.0);
  for (std::int64_t e = 0; e < experts; ++e) {
    const double missing = all - static_cast<double>(experts) * count[e];  // exact: counts are integers
    bias[e] += missing > 0 ? rate : missing < 0 ? -rate : 0;
  }
}

// Each expert, or those that share a capacity, keep the largest of their keys, which hold the score and, below it, the
// place in the group, so that no two are equal. Where choices come first, choice by choice as long as there is room.
void admit_by_priority(Tensor& slot_TK, const Tensor& expert_TK, const Tensor& score_TK, Placement placement,
                       Priority priority) {
  const std::int64_t tokens = expert_TK.dim(0), top_k = expert_TK.dim(1), scores = score_TK.dim(1);
  const std::int64_t passes = priority == Priority::score ? 1 : top_k, width = top_k / passes;
  const std::int32_t* expert = expert_TK.data<std::int32_t>();
  const float* score = score_TK.data<float>();
  std::int32_t* slot = slot_TK.data<std::int32_t>();
  std::fill_n(slot, slot_TK.numel(), -1);
#pragma omp parallel if (tokens * top_k > kParallelElements)
  {
    std::vector<std::vector<std::uint64_t>> keys_E(static_cast<std::size_t>(placement.experts / placement.members));
    std::vector<std::int64_t> room_E(keys_E.size());
#pragma omp for schedule(static)
    for (std::int64_t g = 0; g < tokens / placement.group; ++g) {
      const std::int64_t begin = g * placement.group;
      std::ranges::fill(room_E, placement.capacity);
      for (std::int64_t pass = 0; pass < passes; ++pass) {
        for (auto& keys : keys_E) keys.clear();
        for (std::int64_t t = begin; t < begin + placement.group; ++t)
          for (std::int64_t k = pass * width; k < (pass + 1) * width; ++k) {
            const std::int32_t e = expert[t * top_k + k];
            const auto place = static_cast<std::uint32_t>((t - begin) * top_k + k);
            if (e >= 0)
              keys_E[static_cast<std::size_t>(e / placement.members)].push_back(
                  std::uint64_t{ordered(score[t * scores + std::min(k, scores - 1)])} << 32 | (0xffffffffu - place));
          }
        for (std::size_t e = 0; e < keys_E.size(); ++e) {
          auto& keys = keys_E[e];
          const auto kept = std::min(room_E[e], std::ssize(keys));
          if (kept < std::ssize(keys)) std::ranges::nth_element(keys, keys.begin() + kept, std::ranges::greater{});
          room_E[e] -= kept;
          for (std::int64_t i = 0; i < kept; ++i)
            slot[begin * top_k + (0xffffffffu - static_cast<std::uint32_t>(keys[static_cast<std::size_t>(i)]))] = 0;
        }
      }
    }
  }
}

// With L = p + u_e + v_t, A = min(1, e^(L / entropy)): a round scales experts (u) to their capacity and tokens (v <= 0)
// to the cap, each as if the other constraints' corrections of the round before were undone (Dykstra), until both fit.
void capped_scores(Tensor& score_TE, const Tensor& p_TE, Placement placement, ExpertCap cap) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), group = placement.group;
  const auto E = static_cast<std::size_t>(experts);
  const float log_capacity = std::log(static_cast<float>(placement.capacity)), log_cap = std::log(cap.experts);
  constexpr float kNone = -std::numeric_limits<float>::infinity();
#pragma omp parallel for schedule(static)
  for (std::int64_t g = 0; g < tokens / group; ++g) {
    float* score = score_TE.data<float>() + g * group * experts;
    std::copy_n(p_TE.data<float>() + g * group * experts, group * experts, score);
    std::vector<float> largest(E), sum(E), by_expert(E), by_token(static_cast<std::size_t>(group));
    for (int round = 0; round < cap.rounds; ++round) {
      const float entropy = cap.entropy_in(round), sharpness = 1 / entropy;
      std::ranges::fill(largest, kNone);
      std::ranges::fill(sum, 0.0f);
      for (std::int64_t t = 0; t < group; ++t)
        for (std::size_t e = 0; e < E; ++e)
          largest[e] = std::max(largest[e], std::min(0.0f, score[t * experts + static_cast<std::int64_t>(e)]));
      for (std::int64_t t = 0; t < group; ++t) {
        const float* row = score + t * experts;
#pragma omp simd
        for (std::size_t e = 0; e < E; ++e) sum[e] += exp_approx((std::min(0.0f, row[e]) - largest[e]) * sharpness);
      }
      for (std::size_t e = 0; e < E; ++e) by_expert[e] = entropy * (log_capacity - std::log(sum[e])) - largest[e];

      for (std::int64_t t = 0; t < group; ++t) {
        float* row = score + t * experts;
        float most = kNone, all = 0;
        for (std::size_t e = 0; e < E; ++e) most = std::max(most, std::min(0.0f, row[e]) + by_expert[e]);
#pragma omp simd reduction(+ : all)
        for (std::size_t e = 0; e < E; ++e)
          all += exp_approx((std::min(0.0f, row[e]) + by_expert[e] - most) * sharpness);
        float& mine = by_token[static_cast<std::size_t>(t)];
        const float before = mine;
        mine = std::min(0.0f, entropy * (log_cap - std::log(all)) - most + before);
        for (std::size_t e = 0; e < E; ++e) row[e] += by_expert[e] + (mine - before);
      }
    }
  }
}

}  // namespace switchyard::cpu
