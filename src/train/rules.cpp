#include "train/rules.h"

#include <algorithm>

namespace switchyard {
namespace {

std::string one_or_other(std::int64_t low, std::int64_t high) {
  return low == high ? text(low) : text(low, " or ", high);
}

}  // namespace

std::string nearest_divisors(std::int64_t n, std::int64_t x) {
  std::int64_t low = std::min(x, n), high = std::min(x, n);
  while (n % low != 0) --low;
  while (n % high != 0) ++high;
  return one_or_other(low, high);
}

std::string nearest_multiples(std::int64_t n, std::int64_t x) {
  const std::int64_t low = std::max(n, x / n * n);
  return one_or_other(low, x <= low ? low : low + n);
}

}  // namespace switchyard
