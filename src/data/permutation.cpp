#include "data/permutation.h"

#include <bit>
#include <utility>

#include "tensor/error.h"

namespace switchyard {
namespace {

// Luby and Rackoff need four for large blocks; few bits mix worse. Even, so that the halves end as wide as they began.
constexpr std::uint64_t kRounds = 8;

constexpr std::uint64_t low_bits(std::uint64_t x, int bits) { return x & ((std::uint64_t{1} << bits) - 1); }

}  // namespace

Permutation::Permutation(PhiloxKey key, std::int64_t size)
    : key_(key), size_(size), bits_(std::bit_width(static_cast<std::uint64_t>(size) - 1)) {
  SY_CHECK(size >= 1, "a permutation of ", size, " elements");
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  SY_CHECK(0 <= index && index < size_, "element ", index, " of a permutation of ", size_);
  auto x = static_cast<std::uint64_t>(index);
  do x = scramble(x);
  while (x >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(x);
}

// (left, right) -> (right, left ^ F(right)); the halves are as wide as they can be, so their widths swap too.
std::uint64_t Permutation::scramble(std::uint64_t x) const {
  int right_bits = bits_ / 2, left_bits = bits_ - right_bits;
  std::uint64_t left = x >> right_bits, right = low_bits(x, right_bits);
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const auto random = philox(key_, right, round);
    const std::uint64_t f = random[0] | std::uint64_t{random[1]} << 32;
    left = std::exchange(right, left ^ low_bits(f, left_bits));
    std::swap(left_bits, right_bits);
  }
  return left << right_bits | right;
}

}  // namespace switchyard
