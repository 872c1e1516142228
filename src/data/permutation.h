#pragma once

#include <cstdint>

#include "tensor/philox.h"

namespace switchyard {

// A pseudo-random order of [0, size) in no memory: any element of it costs O(1), whatever the size. A Feistel network
// with Philox as its round function permutes the next power of two, and values outside [0, size) go through it again
// until they are inside (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002); less than
// one time more on average.
class Permutation {
 public:
  Permutation(PhiloxKey key, std::int64_t size);

  std::int64_t operator()(std::int64_t index) const;

 private:
  std::uint64_t scramble(std::uint64_t x) const;

  PhiloxKey key_;
  std::int64_t size_;
  int bits_;
};

}  // namespace switchyard
