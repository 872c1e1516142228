#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace switchyard::cpu {

// A parameter's gradient is a sum over rows. Each block of rows sums its own part, and the parts are added in order:
// the blocks depend on the number of rows alone, so the bits do not depend on the number of threads.
class RowBlocks {
 public:
  static constexpr std::int64_t kBlocks = 64;

  RowBlocks(std::int64_t rows, std::int64_t width)
      : rows_(rows), width_(width), count_(std::min(rows, kBlocks)), parts_(static_cast<std::size_t>(count_ * width)) {}

  std::int64_t count() const { return count_; }
  std::int64_t begin(std::int64_t block) const { return rows_ * block / count_; }
  std::int64_t end(std::int64_t block) const { return begin(block + 1); }

  // The block's part of the sum: `width` floats, zero at first.
  float* part(std::int64_t block) { return parts_.data() + block * width_; }

  // sum = columns [first, first + n) of all parts, added up.
  void total(float* sum, std::int64_t first, std::int64_t n) {
    std::fill_n(sum, n, 0.0f);
    for (std::int64_t block = 0; block < count_; ++block) {
      const float* part = this->part(block) + first;
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) sum[i] += part[i];
    }
  }

 private:
  std::int64_t rows_, width_, count_;
  std::vector<float> parts_;
};

}  // namespace switchyard::cpu
