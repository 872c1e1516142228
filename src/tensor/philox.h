#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace switchyard {

// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): random bits as a pure
// function of a key and a counter. The key says what the numbers are for, the counter is the global index, so that no
// number depends on which rank draws it or in which order.
struct PhiloxKey {
  std::uint32_t low = 0, high = 0;
};

// A key for one purpose ("init model.norm.weight", "shuffle") of a run's seed, by FNV-1a over the words.
constexpr PhiloxKey philox_key(std::uint64_t seed, std::string_view purpose) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&](std::uint8_t byte) { hash = (hash ^ byte) * 0x100000001b3u; };
  for (int i = 0; i < 8; ++i) mix(static_cast<std::uint8_t>(seed >> (8 * i)));
  for (char c : purpose) mix(static_cast<std::uint8_t>(c));
  return {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32)};
}

constexpr std::array<std::uint32_t, 4> philox(PhiloxKey key, std::uint64_t index, std::uint64_t stream = 0) {
  std::array<std::uint32_t, 4> c{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                                 static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0], b = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ key.low, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ key.high, static_cast<std::uint32_t>(a)};
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
  return c;
}

// Uniform in (0, 1): never 0, never 1, so that a logarithm of it is finite.
constexpr double uniform(std::uint32_t bits) { return (bits + 0.5) * 0x1p-32; }

// The same as an f32 of 23 bits, each of which is exact.
constexpr float uniform_f32(std::uint32_t bits) { return (static_cast<float>(bits >> 9) + 0.5f) * 0x1p-23f; }

// The standard normal number at `index` (Box-Muller), redrawn on further streams while it is beyond `limit` deviations.
inline double normal(PhiloxKey key, std::uint64_t index, double limit = 1e9) {
  for (std::uint64_t stream = 0;; ++stream) {
    const auto bits = philox(key, index, stream);
    const double x = std::sqrt(-2 * std::log(uniform(bits[0]))) * std::cos(2 * std::numbers::pi * uniform(bits[1]));
    if (std::abs(x) <= limit) return x;
  }
}

}  // namespace switchyard
