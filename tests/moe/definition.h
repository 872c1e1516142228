#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "moe/config.h"

// A mixture of experts straight from its definition, in double, as loops, sharing no code with the implementation.
namespace switchyard::test {

using Rows = std::vector<std::vector<double>>;

struct DefinedMoe {
  Rows p;                                   // router probabilities, by token
  std::vector<std::vector<int>> chosen;     // experts of each token, first choice first
  std::vector<std::vector<double>> weight;  // before capacity
  std::vector<std::vector<bool>> kept;
  double balance = 0, z = 0;  // means over the tokens, coefficients left out
  Rows y;
};

inline double silu(double x) { return x / (1 + std::exp(-x)); }

// One expert: down(silu(gate x) * up x), gate_up (2F, D) with the gate rows first, down (D, F).
inline std::vector<double> defined_expert(const std::vector<double>& x, const Rows& gate_up, const Rows& down) {
  const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  };
  const std::size_t width = gate_up.size() / 2;
  std::vector<double> hidden, y;
  for (std::size_t f = 0; f < width; ++f) hidden.push_back(silu(dot(gate_up[f], x)) * dot(gate_up[width + f], x));
  for (const auto& row : down) y.push_back(dot(row, hidden));
  return y;
}

inline DefinedMoe defined_moe(const MoeConfig& c, const Rows& x, const Rows& router, const std::vector<Rows>& gate_up,
                              const std::vector<Rows>& down) {
  const std::size_t T = x.size(), E = std::size_t(c.experts), K = std::size_t(c.top_k), G = std::size_t(c.group_size);
  DefinedMoe m;
  for (const auto& row : x) {
    std::vector<double> logits(E), p(E);
    for (std::size_t e = 0; e < E; ++e) logits[e] = std::inner_product(row.begin(), row.end(), router[e].begin(), 0.0);
    double sum = 0;
    for (std::size_t e = 0; e < E; ++e) sum += p[e] = std::exp(logits[e]);
    for (double& v : p) v /= sum;
    m.z += std::log(sum) * std::log(sum) / double(T);
    m.p.push_back(p);

    std::vector<int> order(E);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int a, int b) { return p[std::size_t(a)] > p[std::size_t(b)]; });
    order.resize(K);
    std::vector<double> w;
    double total = 0;
    for (int e : order) w.push_back(p[std::size_t(e)]), total += w.back();
    if (c.renormalise)
      for (double& v : w) v /= total;
    m.chosen.push_back(order);
    m.weight.push_back(w);
  }

  // Each group on its own: all first choices take places in token order, then all second ones, and so on.
  const auto capacity =
      c.capacity_factor == 0 ? T * K : std::size_t(std::ceil(c.capacity_factor * double(K * G) / double(E) - 1e-9));
  m.kept.assign(T, std::vector<bool>(K, false));
  for (std::size_t g = 0; g < T; g += G) {
    std::vector<std::size_t> taken(E, 0);
    for (std::size_t k = 0; k < K; ++k)
      for (std::size_t t = g; t < g + G; ++t)
        if (taken[std::size_t(m.chosen[t][k])] < capacity) ++taken[std::size_t(m.chosen[t][k])], m.kept[t][k] = true;
    // balance, before capacity
    for (std::size_t e = 0; e < E; ++e) {
      double f = 0, mean = 0;
      for (std::size_t t = g; t < g + G; ++t) {
        for (std::size_t k = 0; k < (c.balance_counts == BalanceCounts::first ? 1 : K); ++k)
          f += (m.chosen[t][k] == int(e)) / double(G);
        mean += m.p[t][e] / double(G);
      }
      m.balance += double(E) * f * mean * double(G) / double(T);
    }
  }

  for (std::size_t t = 0; t < T; ++t) {
    std::vector<double> y(x[t].size(), 0.0);
    for (std::size_t k = 0; k < K; ++k) {
      if (!m.kept[t][k]) continue;
      const auto out = defined_expert(x[t], gate_up[std::size_t(m.chosen[t][k])], down[std::size_t(m.chosen[t][k])]);
      for (std::size_t d = 0; d < y.size(); ++d) y[d] += m.weight[t][k] * out[d];
    }
    m.y.push_back(y);
  }
  return m;
}

}  // namespace switchyard::test
