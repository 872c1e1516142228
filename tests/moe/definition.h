#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "expert_cap.h"
#include "moe/config.h"
#include "moe/routing.h"
#include "tensor/philox.h"

// A mixture of experts straight from its definitions, in double, as loops, sharing no code with the implementation but
// the counter-based generator, whose numbers are part of the definition.
namespace switchyard::test {

using Rows = std::vector<std::vector<double>>;

inline double silu(double x) { return x / (1 + std::exp(-x)); }
inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// One expert: down(silu(gate x) * up x) with up (2F, D), the gate rows first, or down(max(0, up x)) with up (F, D);
// down (D, F). Of the hidden features dropout keeps multiples, or all of them as they are.
inline std::vector<double> defined_expert(Activation activation, const std::vector<double>& x, const Rows& up,
                                          const Rows& down, const std::vector<double>& kept = {}) {
  const std::size_t width = down[0].size();
  std::vector<double> hidden, y;
  for (std::size_t f = 0; f < width; ++f)
    hidden.push_back((kept.empty() ? 1 : kept[f]) * (activation == Activation::relu
                                                         ? std::max(0.0, dot(up[f], x))
                                                         : silu(dot(up[f], x)) * dot(up[width + f], x)));
  for (const auto& row : down) y.push_back(dot(row, hidden));
  return y;
}

struct DefinedParameters {
  Rows gate, noise;          // (E, D)
  std::vector<double> bias;  // (E)
  std::vector<Rows> up, down;
  Rows shared_up, shared_down;  // of the shared experts side by side
};

// What a pass is, of tokens that begin at 0 of the global batch.
struct DefinedPass {
  std::uint64_t seed = 1;
  std::string layer = "moe";
  std::int64_t step = 0;
  std::vector<std::int32_t> token;  // ids
  std::size_t micro_batches = 1;    // that the tokens come in, one after the other
};

using Choices = std::vector<std::vector<int>>;  // experts of each token, best first; -1 is one left out at random
using Kept = std::vector<std::vector<bool>>;    // whether there was room (token, expert)

struct DefinedMoe {
  Choices chosen;
  Rows weight;  // of each (token, expert), before capacity; 0 where not chosen
  Kept kept;
  double balance = 0, z = 0;  // means over the tokens, coefficients left out
  double loss = 0;            // all losses of the router
  Rows y;

  std::int64_t rows_kept() const {
    std::int64_t sum = 0;
    for (const auto& of_token : kept) sum += std::ranges::count(of_token, true);
    return sum;
  }
};

inline double uniform_number(PhiloxKey key, std::size_t i) {
  return (double(philox(key, i / 4)[i % 4] >> 9) + 0.5) / 8388608;
}
inline double normal_number(PhiloxKey key, std::size_t i) {
  const auto words = philox(key, i / 2);
  const double u = (double(words[0] >> 9) + 0.5) / 8388608, angle = 2 * M_PI * (double(words[1] >> 9) + 0.5) / 8388608;
  return std::sqrt(-2 * std::log(u)) * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

// The places of the n largest values, largest first, the earlier first among equals.
inline std::vector<int> largest(const std::vector<double>& values, std::size_t n) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return values[std::size_t(a)] > values[std::size_t(b)]; });
  order.resize(n);
  return order;
}

// std(s)^2 / mean(s)^2 over experts
inline double defined_variation(const std::vector<double>& s) {
  const double E = double(s.size()), mean = std::accumulate(s.begin(), s.end(), 0.0) / E;
  double variance = 0;
  for (double v : s) variance += (v - mean) * (v - mean) / E;
  return variance / (mean * mean + 1e-10);
}

// 1. What each token thinks of each expert (T, E).
struct DefinedScores {
  Rows score, share;         // of which weights are made; the same as shares of 1
  Rows clean, noisy, sigma;  // logits without and with noise, and its deviation; empty where there is none
  double z = 0;              // mean square of the logits' log-sum-exp
};

inline PhiloxKey key_of(const DefinedPass& pass, const char* what) {
  return philox_key(pass.seed, pass.layer + " " + what + ", step " + std::to_string(pass.step));
}

inline DefinedScores defined_scores(const MoeConfig& moe, const Rows& x, const DefinedParameters& w,
                                    const DefinedPass& pass) {
  const RouterConfig& c = moe.router;
  const std::size_t T = x.size(), E = std::size_t(moe.experts);
  DefinedScores scores;
  if (c.scores == Scoring::hash) return scores;
  for (std::size_t t = 0; t < T; ++t) {
    std::vector<double> in = x[t], logits(E), s(E), p(E);
    if (c.jitter > 0)
      for (std::size_t d = 0; d < in.size(); ++d)
        in[d] *= 1 - c.jitter + 2 * c.jitter * uniform_number(key_of(pass, "jitter"), t * in.size() + d);
    for (std::size_t e = 0; e < E; ++e) logits[e] = dot(in, w.gate[e]);
    if (c.noise) {
      scores.clean.push_back(logits);
      scores.sigma.emplace_back();
      for (std::size_t e = 0; e < E; ++e) {
        scores.sigma[t].push_back(std::log(1 + std::exp(dot(in, w.noise[e]))) + 1e-2);
        logits[e] += scores.sigma[t][e] * normal_number(key_of(pass, "noise"), t * E + e);
      }
      scores.noisy.push_back(logits);
    }
    double sum = 0, total = 0;
    for (std::size_t e = 0; e < E; ++e) sum += std::exp(logits[e]);
    for (std::size_t e = 0; e < E; ++e)
      s[e] = c.scores == Scoring::sigmoid ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e]) / sum;
    for (double v : s) total += v;
    for (std::size_t e = 0; e < E; ++e) p[e] = s[e] / total;
    if (c.scores == Scoring::softmax) scores.z += std::log(sum) * std::log(sum) / double(T);
    scores.score.push_back(s);
    scores.share.push_back(p);
  }
  return scores;
}

// 2. Choice i of a hashed token: a number below the experts left, counted among those.
inline std::vector<int> hashed_choices(const MoeConfig& moe, std::int32_t token, const DefinedPass& pass) {
  std::set<int> left;
  for (int e = 0; e < moe.experts; ++e) left.insert(e);
  std::vector<int> chosen;
  for (std::size_t i = 0; i < std::size_t(moe.router.top_k); ++i) {
    const double bits = philox(philox_key(pass.seed, pass.layer + " hash"), std::uint64_t(token), i)[0];
    chosen.push_back(*std::next(left.begin(), std::ptrdiff_t(bits * double(left.size()) / 4294967296.0)));
    left.erase(chosen.back());
  }
  return chosen;
}

//    Else the best experts of the groups whose best scores sum up to most; all of them where experts choose.
inline Choices defined_choices(const MoeConfig& moe, const DefinedScores& scores, const DefinedParameters& w,
                               const DefinedPass& pass, std::size_t tokens) {
  const RouterConfig& c = moe.router;
  const std::size_t E = std::size_t(moe.experts), D = std::size_t(c.expert_groups), members = E / D;
  Choices chosen;
  for (std::size_t t = 0; t < tokens; ++t) {
    if (c.scores == Scoring::hash) {
      chosen.push_back(hashed_choices(moe, pass.token[t], pass));
      continue;
    }
    if (c.choice == Choosing::experts) {
      chosen.push_back(largest(scores.score[t], E));
      continue;
    }
    std::vector<double> deciding = scores.score[t], of_group(D);
    for (std::size_t e = 0; e < E; ++e) deciding[e] += c.bias ? w.bias[e] : 0;
    for (std::size_t d = 0; d < D; ++d) {
      const std::vector<double> group(deciding.begin() + std::ptrdiff_t(d * members),
                                      deciding.begin() + std::ptrdiff_t((d + 1) * members));
      for (int i : largest(group, std::size_t(c.group_best))) of_group[d] += group[std::size_t(i)];
    }
    const std::vector<int> open = largest(of_group, std::size_t(c.groups_met));
    for (std::size_t e = 0; e < E; ++e)
      if (std::ranges::find(open, int(e / members)) == open.end()) deciding[e] = -1e30;
    chosen.push_back(largest(deciding, std::size_t(c.top_k)));
  }
  return chosen;
}

// 3. The weight of each (token, expert), before capacity; 0 where not chosen. Choices after the first may be left out
//    by their weight.
inline Rows defined_weights(const MoeConfig& moe, const DefinedScores& scores, const Choices& chosen) {
  const RouterConfig& c = moe.router;
  Rows weight(chosen.size(), std::vector<double>(std::size_t(moe.experts)));
  for (std::size_t t = 0; t < chosen.size(); ++t) {
    double sum = 0;
    for (const int e : chosen[t]) sum += c.scores == Scoring::hash ? 0 : scores.score[t][std::size_t(e)];
    for (const int e : chosen[t])
      weight[t][std::size_t(e)] = c.scores == Scoring::hash
                                      ? 1 / double(chosen[t].size())
                                      : scores.score[t][std::size_t(e)] / (c.renormalise ? sum : 1) * c.weight_scale;
  }
  return weight;
}

inline void leave_some_out(Choices& chosen, const RouterConfig& c, const Rows& weight, const DefinedPass& pass) {
  for (std::size_t t = 0; t < chosen.size() && c.second_threshold > 0; ++t)
    for (std::size_t i = 1; i < chosen[t].size(); ++i)
      if (uniform_number(key_of(pass, "second"), t * chosen[t].size() + i) >=
          weight[t][std::size_t(chosen[t][i])] / c.second_threshold)
        chosen[t][i] = -1;
}

// 4. Which choices find room, in each group of G tokens on its own.

//    Each expert takes its best tokens, or those of the largest capped score.
inline void keep_by_experts(Kept& kept, const MoeConfig& moe, const DefinedScores& scores, std::size_t g) {
  const RouterConfig& c = moe.router;
  const std::size_t E = std::size_t(moe.experts), G = std::size_t(c.group_size),
                    room = std::size_t(std::ceil(c.capacity_factor * double(c.top_k) * double(G) / double(E) - 1e-9));
  std::vector<double> deciding;
  for (std::size_t t = g; t < g + G; ++t)
    deciding.insert(deciding.end(), scores.score[t].begin(), scores.score[t].end());
  if (c.expert_cap > 0)
    deciding = capped_choice(deciding, moe.experts, double(room), {.experts = float(c.expert_cap)}, 3000);
  for (std::size_t e = 0; e < E; ++e) {
    std::vector<double> of_expert;
    for (std::size_t t = 0; t < G; ++t) of_expert.push_back(deciding[t * E + e]);
    for (int t : largest(of_expert, std::min(room, G))) kept[g + std::size_t(t)][e] = true;
  }
}

//    Each device keeps the choices of highest score, or of a spared group all of them.
inline void keep_by_devices(Kept& kept, const MoeConfig& moe, const DefinedScores& scores, const Choices& chosen,
                            const DefinedPass& pass, std::size_t g) {
  const RouterConfig& c = moe.router;
  const std::size_t G = std::size_t(c.group_size), D = std::size_t(c.expert_groups),
                    members = std::size_t(moe.experts) / D,
                    room = std::size_t(std::ceil(c.device_capacity * double(c.top_k) * double(G) / double(D) - 1e-9));
  const PhiloxKey spared = philox_key(pass.seed, "spared groups, step " + std::to_string(pass.step));
  const bool keeps_all = (double(philox(spared, g / G)[0]) + 0.5) / 4294967296.0 < c.spared_groups;
  for (std::size_t d = 0; d < D; ++d) {
    std::vector<std::pair<double, std::pair<std::size_t, std::size_t>>> sent;
    for (std::size_t t = g; t < g + G; ++t)
      for (const int e : chosen[t])
        if (std::size_t(e) / members == d) sent.push_back({scores.score[t][std::size_t(e)], {t, std::size_t(e)}});
    std::ranges::stable_sort(sent, [](const auto& a, const auto& b) { return a.first > b.first; });
    for (std::size_t i = 0; i < (keeps_all ? sent.size() : std::min(room, sent.size())); ++i)
      kept[sent[i].second.first][sent[i].second.second] = true;
  }
}

//    All first choices take places before any second, in token order or the surest tokens first.
inline void keep_in_order(Kept& kept, const MoeConfig& moe, const DefinedScores& scores, const Choices& chosen,
                          std::size_t g) {
  const RouterConfig& c = moe.router;
  const std::size_t E = std::size_t(moe.experts), G = std::size_t(c.group_size), K = std::size_t(c.top_k),
                    room = c.capacity_factor == 0
                               ? chosen.size() * E
                               : std::size_t(std::ceil(c.capacity_factor * double(K * G) / double(E) - 1e-9));
  std::vector<std::size_t> taken(E), order(G);
  std::iota(order.begin(), order.end(), g);
  if (c.admission == Admission::priority)
    std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
      return *std::ranges::max_element(scores.score[a]) > *std::ranges::max_element(scores.score[b]);
    });
  for (std::size_t k = 0; k < K; ++k)
    for (const std::size_t t : order)
      if (const int e = chosen[t][k]; e >= 0 && taken[std::size_t(e)] < room)
        ++taken[std::size_t(e)], kept[t][std::size_t(e)] = true;
}

// 5. Losses: over each set of tokens, then averaged over the sets. With a global scope loads are those of the tokens so
//    far.
inline void add_losses(DefinedMoe& m, const MoeConfig& moe, const DefinedScores& scores, const DefinedPass& pass) {
  const RouterConfig& c = moe.router;
  const std::size_t T = m.chosen.size(), E = std::size_t(moe.experts), K = std::size_t(c.top_k),
                    D = std::size_t(c.expert_groups), members = E / D,
                    S = c.balance_scope == BalanceScope::group ? std::size_t(c.group_size) : T / pass.micro_batches;
  for (std::size_t first = 0; first < T; first += S) {
    const std::size_t from = c.balance_scope == BalanceScope::global ? 0 : first;
    const double n = double(S), so_far = double(first + S - from), part = n / double(T);
    std::vector<double> f(E), all(E), P(E), importance(E), load(E), sent(D);
    for (std::size_t t = from; t < first + S; ++t) {
      std::set<std::size_t> groups;
      const std::vector<int> counted = c.bias ? largest(scores.score[t], K) : m.chosen[t];
      for (std::size_t k = 0; k < K; ++k) {
        if (counted[k] >= 0 && (k == 0 || c.balance_counts != BalanceCounts::first))
          f[std::size_t(counted[k])] += 1 / so_far;
        if (m.chosen[t][k] < 0) continue;
        const auto e = std::size_t(m.chosen[t][k]);
        all[e] += 1 / so_far;
        groups.insert(e / members);
      }
      for (std::size_t d : groups) sent[d] += 1 / so_far;
    }
    for (std::size_t t = first; t < first + S; ++t)
      for (std::size_t e = 0; e < E; ++e) {
        P[e] += scores.share[t][e] / n;
        importance[e] += m.weight[t][e];
        if (c.noise) {
          std::vector<double> others = scores.noisy[t];
          others.erase(others.begin() + std::ptrdiff_t(e));
          const double limit = others[std::size_t(largest(others, K).back())];
          load[e] += 0.5 * std::erfc(-(scores.clean[t][e] - limit) / scores.sigma[t][e] / std::sqrt(2.0));
        }
      }
    double balance = 0;
    for (std::size_t e = 0; e < E; ++e)
      balance += double(E) / (c.balance_counts == BalanceCounts::mean ? double(K) : 1) * f[e] * P[e];
    m.balance += part * balance;
    for (std::size_t d = 0; d < D; ++d) {
      double mean = 0, together = 0;
      for (std::size_t e = d * members; e < (d + 1) * members; ++e) {
        mean += double(E) / double(K) * all[e] / double(members);
        together += P[e];
      }
      m.loss +=
          part * (c.device_loss * mean + c.communication_loss * double(D) / double(c.groups_met) * sent[d]) * together;
    }
    m.loss += part * (c.importance_loss * defined_variation(importance));
    if (c.noise) m.loss += part * c.load_loss * defined_variation(load);
  }
  m.loss += c.balance_loss * m.balance;
}

// What the experts that keep a token make of it, and the shared ones.
inline Rows defined_outputs(const MoeConfig& moe, const Rows& x, const DefinedParameters& w, const DefinedMoe& m,
                            const DefinedPass& pass) {
  Rows outputs;
  for (std::size_t t = 0; t < x.size(); ++t) {
    std::vector<double> y(x[t].size(), 0.0);
    for (std::size_t e = 0; e < std::size_t(moe.experts); ++e) {
      if (!m.kept[t][e]) continue;
      std::vector<double> features;
      if (const double rate = double{float(moe.expert_dropout)}; rate > 0) {
        const auto F = std::size_t(moe.d_ff), K = m.chosen[t].size(),
                   i = std::size_t(std::ranges::find(m.chosen[t], int(e)) - m.chosen[t].begin());
        for (std::size_t f = 0; f < F; ++f)
          features.push_back(
              uniform_number(key_of(pass, "expert dropout"), (t * K + i) * F + f) < rate ? 0 : 1 / (1 - rate));
      }
      const auto out = defined_expert(*moe.activation, x[t], w.up[e], w.down[e], features);
      for (std::size_t d = 0; d < y.size(); ++d) y[d] += m.weight[t][e] * out[d];
    }
    // Each shared expert on its own: F neighbouring up rows, of gate and up where there are both, and down columns.
    for (std::size_t s = 0, F = std::size_t(moe.d_ff), all = F * std::size_t(moe.shared_experts); s * F < all; ++s) {
      Rows up, down;
      for (std::size_t half = 0; half < w.shared_up.size(); half += all)
        for (std::size_t f = 0; f < F; ++f) up.push_back(w.shared_up[half + s * F + f]);
      for (const auto& row : w.shared_down)
        down.emplace_back(row.begin() + std::ptrdiff_t(s * F), row.begin() + std::ptrdiff_t((s + 1) * F));
      const auto out = defined_expert(*moe.activation, x[t], up, down);
      for (std::size_t d = 0; d < y.size(); ++d) y[d] += out[d];
    }
    outputs.push_back(y);
  }
  return outputs;
}

inline DefinedMoe defined_moe(const MoeConfig& moe, const Rows& x, const DefinedParameters& w,
                              const DefinedPass& pass = {}) {
  const RouterConfig& c = moe.router;
  const std::size_t T = x.size();
  DefinedMoe m;
  const DefinedScores scores = defined_scores(moe, x, w, pass);
  m.chosen = defined_choices(moe, scores, w, pass, T);
  m.weight = defined_weights(moe, scores, m.chosen);
  leave_some_out(m.chosen, c, m.weight, pass);
  m.kept.assign(T, std::vector<bool>(std::size_t(moe.experts)));
  for (std::size_t g = 0; g < T; g += std::size_t(c.group_size))
    if (c.choice == Choosing::experts)
      keep_by_experts(m.kept, moe, scores, g);
    else if (c.device_capacity > 0)
      keep_by_devices(m.kept, moe, scores, m.chosen, pass, g);
    else
      keep_in_order(m.kept, moe, scores, m.chosen, g);
  if (c.choice == Choosing::experts)  // reported only: first choices as they would be
    m.balance = NAN;
  else if (c.scores != Scoring::hash)
    add_losses(m, moe, scores, pass);
  m.z = scores.z;
  m.loss += c.z_loss * m.z;
  m.y = defined_outputs(moe, x, w, m, pass);
  return m;
}

}  // namespace switchyard::test
