#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "checkpoint/box.h"
#include "tensor/tensor.h"

namespace switchyard {

// What a tensor's elements are, however it is cut: the sum over them, modulo 2^64 in each half, of
//   low = m(s(index) ^ bits),  high = m(low + g)
// where index is the element's place in the row-major global tensor, bits its own bits as an unsigned number, s(i) =
// m((i + 1) g) the i-th output of SplitMix64 (Steele, Lea, Flood 2014), m that generator's finalizer and g its
// increment. Another value anywhere, two that changed places, a slice at another origin, twice or left out: each gives
// another digest but for a chance of about 2^-64. Sums of parts are the digest of the whole, in any order. Against
// mixed-up slices, not against forgers: SHA-256 guards the files' bytes.
struct Digest {
  std::uint64_t low = 0, high = 0;

  Digest& operator+=(const Digest& other) {
    low += other.low;
    high += other.high;
    return *this;
  }
  bool operator==(const Digest&) const = default;
};

// The share of the elements of `box`, which `host` holds, in the digest of a tensor of `global_shape`.
Digest digest_of(const Tensor& host, const Box& box, const Shape& global_shape);

std::string to_hex(const Digest& digest);                        // 32 lower-case digits, `high` first
std::optional<Digest> digest_of_hex(const std::string& digits);  // the inverse; nothing for anything else

}  // namespace switchyard
