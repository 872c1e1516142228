#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/routed_text.h"

namespace switchyard {

// A label of each token, in [0, count).
struct Labels {
  std::vector<std::int32_t> of_T;
  std::int32_t count = 1;

  // All alike.
  static Labels none(std::size_t tokens) { return {std::vector<std::int32_t>(tokens), 1}; }
};

// With n(s, l, e) the choices of expert e by tokens of label l and stratum s, and sums over what is left out, N in all:
//   I(expert; label | stratum) = sum n(s, l, e) / N log [ n(s, l, e) n(s) / (n(s, l) n(s, e)) ]         nats
// Every choice that a token makes counts as one.
double mutual_information(const RoutedBlock& block, std::int64_t experts, const Labels& labels, const Labels& strata);

// The most that could be: min(H(label | stratum), H(expert | stratum)).
double information_bound(const RoutedBlock& block, std::int64_t experts, const Labels& labels, const Labels& strata);

// The labels that the tokens of each stratum have, dealt to them in another order, which the key decides.
Labels shuffled(const Labels& labels, const Labels& strata, PhiloxKey key);

// The information beside that of shuffled labels, which is what chance gives with as many tokens.
struct Information {
  double nats = 0, bound = 0;
  double shuffled_mean = 0, shuffled_sd = 0, shuffled_max = 0;  // sd: of the sample, n - 1
};

// By block. The same for the same seed, purpose and text; at least two shuffles.
std::vector<Information> information(const RoutedText& text, const Labels& labels, const Labels& strata,
                                     std::int64_t shuffles, std::uint64_t seed, const std::string& purpose);

}  // namespace switchyard
