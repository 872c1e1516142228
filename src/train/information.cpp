#include "train/information.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/philox.h"

namespace switchyard {
namespace {

// n(s, l, e), stratum by stratum.
struct Counts {
  std::size_t strata, labels, experts;
  std::vector<std::int64_t> of_SLE = std::vector<std::int64_t>(strata * labels * experts);

  Counts(const RoutedBlock& block, std::int64_t experts, const Labels& label, const Labels& stratum)
      : strata(std::size_t(stratum.count)), labels(std::size_t(label.count)), experts(std::size_t(experts)) {
    const auto choices = static_cast<std::size_t>(block.choices);
    SY_CHECK(block.expert_TK.size() == label.of_T.size() * choices && label.of_T.size() == stratum.of_T.size(),
             "information: ", block.expert_TK.size(), " choices, ", label.of_T.size(), " labels and ",
             stratum.of_T.size(), " strata are not of the same tokens");
    const std::int32_t* expert = block.expert_TK.data();
    for (std::size_t t = 0; t < label.of_T.size(); ++t) {
      std::int64_t* of_E =
          &of_SLE[(std::size_t(stratum.of_T[t]) * labels + std::size_t(label.of_T[t])) * this->experts];
      for (std::size_t k = 0; k < choices; ++k, ++expert)
        if (*expert >= 0) ++of_E[*expert];
    }
  }

  std::int64_t all() const { return std::accumulate(of_SLE.begin(), of_SLE.end(), std::int64_t{0}); }

  // f(n_LE, n_L, n_E, n) of each stratum that has choices.
  template <class F>
  void each_stratum(F f) const {
    for (std::size_t s = 0; s < strata; ++s) {
      const std::int64_t* n_LE = &of_SLE[s * labels * experts];
      std::vector<std::int64_t> n_L(labels), n_E(experts);
      for (std::size_t l = 0; l < labels; ++l)
        for (std::size_t e = 0; e < experts; ++e) n_L[l] += n_LE[l * experts + e], n_E[e] += n_LE[l * experts + e];
      if (const std::int64_t n = std::accumulate(n_L.begin(), n_L.end(), std::int64_t{0}); n > 0) f(n_LE, n_L, n_E, n);
    }
  }
};

double n_log_n(std::int64_t n) { return n > 0 ? static_cast<double>(n) * std::log(static_cast<double>(n)) : 0; }

// sum_i n_i log (n / n_i)
double weighed_entropy(const std::vector<std::int64_t>& n_I, std::int64_t n) {
  double sum = n_log_n(n);
  for (const std::int64_t each : n_I) sum -= n_log_n(each);
  return sum;
}

}  // namespace

double mutual_information(const RoutedBlock& block, std::int64_t experts, const Labels& labels, const Labels& strata) {
  const Counts counts(block, experts, labels, strata);
  double sum = 0;
  counts.each_stratum([&](const std::int64_t* n_LE, const auto& n_L, const auto& n_E, std::int64_t n) {
    for (std::size_t l = 0; l < n_L.size(); ++l)
      for (std::size_t e = 0; e < n_E.size(); ++e)
        if (const auto both = static_cast<double>(n_LE[l * n_E.size() + e]); both > 0)
          sum += both * std::log(both * static_cast<double>(n) / (static_cast<double>(n_L[l]) * double(n_E[e])));
  });
  return sum / static_cast<double>(std::max<std::int64_t>(counts.all(), 1));
}

double information_bound(const RoutedBlock& block, std::int64_t experts, const Labels& labels, const Labels& strata) {
  const Counts counts(block, experts, labels, strata);
  double of_label = 0, of_expert = 0;
  counts.each_stratum([&](const std::int64_t*, const auto& n_L, const auto& n_E, std::int64_t n) {
    of_label += weighed_entropy(n_L, n);
    of_expert += weighed_entropy(n_E, n);
  });
  return std::min(of_label, of_expert) / static_cast<double>(std::max<std::int64_t>(counts.all(), 1));
}

// Fisher and Yates, in each stratum.
Labels shuffled(const Labels& labels, const Labels& strata, PhiloxKey key) {
  std::vector<std::size_t> place(labels.of_T.size());  // of tokens, stratum by stratum
  std::iota(place.begin(), place.end(), std::size_t{0});
  std::ranges::stable_sort(place, {}, [&](std::size_t t) { return strata.of_T[t]; });
  Labels dealt = labels;
  for (std::size_t i = 0, begin = 0; i < place.size(); ++i) {
    if (strata.of_T[place[i]] != strata.of_T[place[begin]]) begin = i;
    const std::size_t other = begin + (std::uint64_t{philox(key, i)[0]} * (i - begin + 1) >> 32);
    std::swap(dealt.of_T[place[i]], dealt.of_T[place[other]]);
  }
  return dealt;
}

std::vector<Information> information(const RoutedText& text, const Labels& labels, const Labels& strata,
                                     std::int64_t shuffles, std::uint64_t seed, const std::string& purpose) {
  SY_CHECK(shuffles >= 2, "information: wanted two shuffles or more, came ", shuffles);
  std::vector<std::vector<double>> by_chance(text.blocks.size());
  for (std::int64_t i = 0; i < shuffles; ++i) {
    const Labels dealt = shuffled(labels, strata, philox_key(seed, switchyard::text("shuffle ", i, " of ", purpose)));
    for (std::size_t b = 0; b < text.blocks.size(); ++b)
      by_chance[b].push_back(mutual_information(text.blocks[b], text.experts, dealt, strata));
  }
  std::vector<Information> blocks;
  for (std::size_t b = 0; b < text.blocks.size(); ++b) {
    const std::vector<double>& xs = by_chance[b];
    const auto n = static_cast<double>(xs.size());
    const double mean = std::accumulate(xs.begin(), xs.end(), 0.0) / n;
    double squares = 0;
    for (const double x : xs) squares += (x - mean) * (x - mean);
    blocks.push_back({.nats = mutual_information(text.blocks[b], text.experts, labels, strata),
                      .bound = information_bound(text.blocks[b], text.experts, labels, strata),
                      .shuffled_mean = mean,
                      .shuffled_sd = std::sqrt(squares / (n - 1)),
                      .shuffled_max = *std::ranges::max_element(xs)});
  }
  return blocks;
}

}  // namespace switchyard
