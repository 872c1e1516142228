#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// Which source each sample of a run comes from, as a pure function of the sample's number.
//
// Weights become whole shares q_i of a period M: the smallest M <= 65536 that fits them exactly (weights of up to four
// digits always have one), else M = 65536 and shares off by at most about 1/M. Among the first n samples, source i has
// floor(n q_i / M) or ceil(n q_i / M): less than one sample from its share, at every n. The order is earliest deadline
// first, where sample j of source i may come at j M / q_i and must before ceil((j + 1) M / q_i); that this misses no
// deadline is Baruah, Cohen, Plaxton and Varvel, "Proportionate progress", 1996. One period is tabled, the rest
// repeats.
class Blend {
 public:
  static constexpr std::int64_t kMaxPeriod = 65536;

  struct Pick {
    std::int32_t source = 0;
    std::int64_t index = 0;  // how many samples of that source come before

    bool operator==(const Pick&) const = default;
  };

  // Weights are at least 0, and one is more; a source of weight 0 is never picked. Throws Error (Fault::usage).
  explicit Blend(std::span<const double> weights);

  Pick operator()(std::int64_t n) const;
  std::int64_t period() const { return static_cast<std::int64_t>(picks_.size()); }
  const std::vector<std::int64_t>& shares() const { return shares_; }  // q_i of a period

 private:
  std::vector<std::int64_t> shares_;
  std::vector<Pick> picks_;  // of one period
};

}  // namespace switchyard
