#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dist/process_group.h"

namespace switchyard {

// The elements [begin, end) of n that one of `size` ranks reduces for all of them.
struct Share {
  std::int64_t begin, end;

  std::int64_t count() const { return end - begin; }
};
constexpr Share share_of(std::int64_t n, int rank, int size) { return {n * rank / size, n * (rank + 1) / size}; }
// Elements that a rank sends in an all-reduce of n: to each other rank its share of this rank's part, and to all of
// them this rank's share of the result; 2 (size - 1) / size of n.
inline std::int64_t all_reduce_elements(std::int64_t n, int rank, int size) {
  return n + (size - 2) * share_of(n, rank, size).count();
}

// out[i] = parts[0][i] op parts[1][i] op ..., from the left, for n elements of f32 or i32, rounded to f32 after each,
// or of bf16, reduced in f32 and rounded to bf16 at the end. The order is what makes every kind of group give the same
// bits. `out` may be one of the parts.
void reduce_in_order(std::byte* out, std::span<const std::byte* const> parts, std::int64_t n, DType dtype, Reduce op);

}  // namespace switchyard
