#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tensor/error.h"
#include "train/config_rules.h"

namespace switchyard {

// The divisors of n nearest to x from both sides, and the multiples of n, n itself at the least: "64 or 128".
std::string nearest_divisors(std::int64_t n, std::int64_t x);
std::string nearest_multiples(std::int64_t n, std::int64_t x);

// Collects the rules that a configuration breaks.
class Rules {
 public:
  template <class... Parts>
  void require(bool holds, std::vector<std::string> keys, const Parts&... what) {
    if (!holds) broken_.push_back({std::move(keys), text(what...)});
  }
  std::vector<Violation> broken() && { return std::move(broken_); }

 private:
  std::vector<Violation> broken_;
};

}  // namespace switchyard
