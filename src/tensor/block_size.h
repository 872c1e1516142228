#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>

namespace switchyard {

// The bytes that the allocator takes for so many: one of eight sizes an octave, 512 at least.
constexpr std::size_t block_size(std::size_t bytes) {
  const std::size_t octave = std::bit_floor(std::max<std::size_t>(bytes, 512));
  const std::size_t step = octave / 8;
  return (std::max<std::size_t>(bytes, 512) + step - 1) / step * step;
}

}  // namespace switchyard
