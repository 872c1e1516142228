#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tensor/kernels.h"

namespace switchyard::test {

// Dykstra's projections as printed in Benamou et al. (arXiv 1412.5154, section 3.1), without logarithms, which long
// double bears, and with a correction matrix for each set: experts have `capacity` tokens, tokens at most `cap`
// experts, nothing is above 1. p: tokens by experts of one group.
inline std::vector<double> capped_choice(const std::vector<double>& p, std::int64_t experts, double capacity,
                                         ExpertCap cap, int rounds) {
  const std::int64_t count = std::ssize(p);
  const std::vector<long double> ones(p.size(), 1);
  std::vector<long double> a, corrections[2] = {ones, ones};
  for (const double score : p) a.push_back(std::exp(static_cast<long double>(score) / cap.entropy));
  const auto sum = [&](const std::vector<long double>& x, std::int64_t first, std::int64_t step, std::int64_t n) {
    long double all = 0;
    for (std::int64_t i = 0; i < n; ++i) all += x[std::size_t(first + i * step)];
    return all;
  };
  for (int round = 0; round < rounds; ++round) {
    for (std::int64_t e = 0; e < experts; ++e) {
      const long double factor = capacity / sum(a, e, experts, count / experts);
      for (std::int64_t i = e; i < count; i += experts) a[std::size_t(i)] *= factor;
    }
    std::vector<long double> corrected = a;
    for (std::size_t i = 0; i < p.size(); ++i) corrected[i] *= corrections[0][i];
    for (std::int64_t t = 0; t < count; t += experts) {
      const long double factor = std::min(1.0L, cap.experts / sum(corrected, t, 1, experts));
      for (std::int64_t i = t; i < t + experts; ++i) a[std::size_t(i)] = corrected[std::size_t(i)] * factor;
    }
    for (std::size_t i = 0; i < p.size(); ++i) corrections[0][i] = corrected[i] / a[i];
    for (std::size_t i = 0; i < p.size(); ++i) {
      const long double x = a[i] * corrections[1][i];
      a[i] = std::min(1.0L, x);
      corrections[1][i] = x / a[i];
    }
  }
  return {a.begin(), a.end()};
}

}  // namespace switchyard::test
