#include "data/blend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/error.h"

namespace switchyard {
namespace {

// The largest-remainder method; every source with a weight gets at least one share.
std::vector<std::int64_t> nearest_shares(std::span<const double> weights, double total, std::int64_t period) {
  const std::size_t k = weights.size();
  std::vector<std::int64_t> shares(k);
  std::vector<double> missing(k, -1);
  std::vector<std::size_t> order(k);
  std::iota(order.begin(), order.end(), 0u);
  for (std::size_t i = 0; i < k; ++i) {
    const double exact = weights[i] / total * static_cast<double>(period);
    if (weights[i] > 0) shares[i] = std::max<std::int64_t>(1, static_cast<std::int64_t>(exact));
    if (weights[i] > 0) missing[i] = exact - static_cast<double>(shares[i]);
  }
  std::ranges::stable_sort(order, std::greater<>{}, [&](std::size_t i) { return missing[i]; });
  std::int64_t left = period - std::accumulate(shares.begin(), shares.end(), std::int64_t{0});
  for (std::size_t i = 0; left > 0; ++i, --left) ++shares[order[i]];
  for (; left < 0; ++left) --*std::ranges::max_element(shares);
  return shares;
}

std::vector<std::int64_t> shares_of(std::span<const double> weights, double total) {
  for (std::int64_t period = 1; period <= Blend::kMaxPeriod; ++period) {
    // A share of a double such as 0.1 is only this near to a whole number.
    const auto whole = [&](double weight) {
      const double share = weight / total * static_cast<double>(period);
      return std::abs(share - std::round(share)) <= 1e-12 * static_cast<double>(period) && (weight == 0 || share > 0.5);
    };
    if (std::ranges::all_of(weights, whole)) return nearest_shares(weights, total, period);
  }
  return nearest_shares(weights, total, Blend::kMaxPeriod);
}

}  // namespace

Blend::Blend(std::span<const double> weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  SY_REQUIRE(std::ranges::all_of(weights, [](double w) { return w >= 0 && std::isfinite(w); }) && total > 0 &&
                 std::isfinite(total),
             Fault::usage, "weights of data sources must be finite and at least 0, and one must be more");
  SY_REQUIRE(std::ranges::count_if(weights, [](double w) { return w > 0; }) <= kMaxPeriod, Fault::usage, "at most ",
             kMaxPeriod, " data sources can be blended, got ", weights.size());
  shares_ = shares_of(weights, total);

  const std::int64_t period = std::accumulate(shares_.begin(), shares_.end(), std::int64_t{0});
  std::vector<std::int64_t> taken(shares_.size());
  for (std::int64_t slot = 0; slot < period; ++slot) {
    std::int32_t next = -1;
    std::int64_t earliest = period + 1;
    for (std::size_t i = 0; i < shares_.size(); ++i) {
      const std::int64_t q = shares_[i];
      if (q == 0 || taken[i] * period >= (slot + 1) * q) continue;  // none to take, or not yet
      const std::int64_t deadline = ((taken[i] + 1) * period + q - 1) / q;
      if (deadline < earliest) {
        earliest = deadline;
        next = static_cast<std::int32_t>(i);
      }
    }
    SY_CHECK(next >= 0 && earliest > slot, "slot ", slot, " of ", period, " misses a deadline");
    picks_.push_back({next, taken[static_cast<std::size_t>(next)]++});
  }
}

Blend::Pick Blend::operator()(std::int64_t n) const {
  Pick pick = picks_[static_cast<std::size_t>(n % period())];
  pick.index += n / period() * shares_[static_cast<std::size_t>(pick.source)];
  return pick;
}

}  // namespace switchyard
