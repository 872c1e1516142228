#include "checkpoint/digest.h"

#include <charconv>
#include <string_view>
#include <type_traits>

namespace switchyard {
namespace {

constexpr std::uint64_t kIncrement = 0x9E3779B97F4A7C15;

constexpr std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

// `n` elements whose places follow each other from `first` on.
template <class Bits>
Digest digest_of_run(const std::byte* bytes, std::int64_t n, std::int64_t first) {
  const auto* elements = reinterpret_cast<const Bits*>(bytes);
  std::uint64_t low = 0, high = 0, state = static_cast<std::uint64_t>(first) * kIncrement;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint64_t hash = mix(mix(state += kIncrement) ^ elements[i]);
    low += hash;
    high += mix(hash + kIncrement);
  }
  return {low, high};
}

Digest digest_of_run(const std::byte* bytes, std::size_t width, std::int64_t n, std::int64_t first) {
  switch (width) {
    case 1: return digest_of_run<std::uint8_t>(bytes, n, first);
    case 2: return digest_of_run<std::uint16_t>(bytes, n, first);
    case 4: return digest_of_run<std::uint32_t>(bytes, n, first);
    default: return digest_of_run<std::uint64_t>(bytes, n, first);
  }
}

}  // namespace

Digest digest_of(const Tensor& host, const Box& box, const Shape& global_shape) {
  SY_CHECK(host.shape() == box.shape && box.shape.rank() == global_shape.rank(), "a tensor ", host.shape(),
           " for a slice ", box.shape, " of ", global_shape);
  // Elements of the box that follow each other in the tensor too: its last axis, and the one before while it is whole.
  int axis = box.shape.rank() - 1;
  std::int64_t run = box.shape[axis];
  while (axis > 0 && box.shape[axis] == global_shape[axis]) run *= box.shape[--axis];

  const std::size_t width = size_of(host.dtype());
  Digest sum;
  for (std::int64_t begin = 0; begin < host.numel(); begin += run) {
    const std::int64_t first = start_of_line(box, global_shape, begin / box.shape[-1]);
    sum += digest_of_run(host.bytes() + static_cast<std::size_t>(begin) * width, width, run, first);
  }
  return sum;
}

std::string to_hex(const Digest& digest) {
  std::string digits;
  for (const std::uint64_t half : {digest.high, digest.low})
    for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[half >> shift & 15];
  return digits;
}

std::optional<Digest> digest_of_hex(const std::string& digits) {
  Digest digest;
  if (digits.size() != 32 || digits.find_first_not_of("0123456789abcdef") != std::string::npos) return std::nullopt;
  std::from_chars(digits.data(), digits.data() + 16, digest.high, 16);
  std::from_chars(digits.data() + 16, digits.data() + 32, digest.low, 16);
  return digest;
}

}  // namespace switchyard
