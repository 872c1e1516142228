#include "tensor/cpu/panels.h"

#include <algorithm>
#include <cstring>

#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

using Word = std::uint32_t;         // two bf16 beside each other
constexpr int kWords = kPanel / 2;  // words in a row of a block
using Words = Word __attribute__((vector_size(kWords * sizeof(Word))));

// Swaps the off-diagonal quarters of every 2d x 2d square of a 16 x 16 square: one of the transpose's four steps.
template <Word d>
[[gnu::always_inline]] inline void swap_quarters(Words* row) {
  constexpr Words kLane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  constexpr Words kUpper = kLane + (kLane & d) / d * (kWords - d);  // a's lower quarters beside b's
  constexpr Words kLower = kUpper + d;                              // a's upper quarters beside b's
#pragma GCC unroll 16
  for (Word i = 0; i < kWords; ++i)
    if (!(i & d)) {
      const Words a = row[i], b = row[i + d];
      row[i] = __builtin_shuffle(a, b, kUpper);
      row[i + d] = __builtin_shuffle(a, b, kLower);
    }
}

// y[j][i] = x[i][j] for 16 x 16 words, which may lie at any address; pitches in bytes.
[[gnu::always_inline]] inline void transpose_words(void* y, std::int64_t y_pitch, const void* x, std::int64_t x_pitch) {
  Words row[kWords];
#pragma GCC unroll 16
  for (int i = 0; i < kWords; ++i) std::memcpy(&row[i], static_cast<const std::byte*>(x) + i * x_pitch, sizeof(Words));
  swap_quarters<1>(row);
  swap_quarters<2>(row);
  swap_quarters<4>(row);
  swap_quarters<8>(row);
#pragma GCC unroll 16
  for (int i = 0; i < kWords; ++i) std::memcpy(static_cast<std::byte*>(y) + i * y_pitch, &row[i], sizeof(Words));
}

// y[k / 2][col][k % 2] = x[k][col] for 32 x 32 elements.
[[gnu::always_inline]] inline void interleave_rows(bf16* y, Rows<const bf16> x) {
  using Row = std::uint16_t __attribute__((vector_size(kPanel * sizeof(bf16))));
  constexpr Row kLow{0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  constexpr Row kHigh = kLow + kPanel / 2;
  for (std::int64_t k = 0; k < kPanel; k += 2) {
    Row even, odd;
    std::memcpy(&even, x.data + k * x.pitch, sizeof(Row));
    std::memcpy(&odd, x.data + (k + 1) * x.pitch, sizeof(Row));
    const Row low = __builtin_shuffle(even, odd, kLow), high = __builtin_shuffle(even, odd, kHigh);
    std::memcpy(y + k * kPanel, &low, sizeof(Row));
    std::memcpy(y + (k + 1) * kPanel, &high, sizeof(Row));
  }
}

// y[k / 2][row][k % 2] = x[row][k] for 32 x 32 elements.
[[gnu::always_inline]] inline void transpose_pairs(bf16* y, Rows<const bf16> x) {
  const std::int64_t pitch = x.pitch * static_cast<std::int64_t>(sizeof(bf16));
  for (int half = 0; half < 2; ++half)
    transpose_words(y + half * kPanel, 2 * sizeof(Words), x.data + half * kWords * x.pitch, pitch);
}

// The part of a block that exists, zeros around it, where the block is not whole; x itself where it is.
[[gnu::always_inline]] inline Rows<const bf16> whole(bf16* block, Rows<const bf16> x, std::int64_t rows,
                                                     std::int64_t cols) {
  if (rows == kPanel && cols == kPanel) return x;
  std::memset(block, 0, kBlockSize * sizeof(bf16));
  for (std::int64_t i = 0; i < rows; ++i)
    std::memcpy(block + i * kPanel, x.data + i * x.pitch, static_cast<std::size_t>(cols) * sizeof(bf16));
  return {block, kPanel};
}

}  // namespace

void pack_left_block(bf16* block, Rows<const bf16> a, std::int64_t rows, std::int64_t cols, Trans ta) {
  alignas(64) bf16 padded[kBlockSize], pairs[kBlockSize];
  const Rows<const bf16> x = whole(padded, a, rows, cols);
  if (ta == Trans::no) {
    for (int i = 0; i < kPanel; ++i) std::memcpy(block + i * kPanel, x.data + i * x.pitch, kPanel * sizeof(bf16));
    return;
  }
  interleave_rows(pairs, x);
  for (int half = 0; half < 2; ++half)
    transpose_words(block + half * kBlockSize / 2, sizeof(Words), pairs + half * kPanel, 2 * sizeof(Words));
}

void pack_right_block(bf16* block, Rows<const bf16> b, std::int64_t rows, std::int64_t cols, Trans tb) {
  alignas(64) bf16 padded[kBlockSize];
  const Rows<const bf16> x = whole(padded, b, rows, cols);
  tb == Trans::yes ? transpose_pairs(block, x) : interleave_rows(block, x);
}

void pack_weight_block(bf16* block_transposed, bf16* block, Rows<const float> w, std::int64_t rows, std::int64_t cols) {
  alignas(64) bf16 x[kBlockSize];
  if (rows < kPanel || cols < kPanel) std::memset(x, 0, sizeof(x));
  for (std::int64_t i = 0; i < rows; ++i)
    if (cols == kPanel)
      convert_row(x + i * kPanel, w.data + i * w.pitch, kPanel);
    else
      convert_row(x + i * kPanel, w.data + i * w.pitch, cols);
  transpose_pairs(block_transposed, {x, kPanel});
  interleave_rows(block, {x, kPanel});
}

void pack_right(bf16* packed, Rows<const bf16> b, std::int64_t k, std::int64_t n, Trans tb) {
  const std::int64_t depth = panels(k), width = panels(n);
  const auto pack = [&](std::int64_t panel, std::int64_t block) {
    const std::int64_t rows = std::min(k - block * kPanel, kPanel), cols = std::min(n - panel * kPanel, kPanel);
    bf16* y = packed + (panel * depth + block) * kBlockSize;
    if (tb == Trans::yes)
      pack_right_block(y, {b.data + panel * kPanel * b.pitch + block * kPanel, b.pitch}, cols, rows, tb);
    else
      pack_right_block(y, {b.data + block * kPanel * b.pitch + panel * kPanel, b.pitch}, rows, cols, tb);
  };
  // A thread reads whole rows of b: 32 of them are a panel of b^T or the blocks of all panels at one depth of b.
  if (tb == Trans::yes) {
#pragma omp parallel for schedule(static)
    for (std::int64_t panel = 0; panel < width; ++panel)
      for (std::int64_t block = 0; block < depth; ++block) pack(panel, block);
  } else {
#pragma omp parallel for schedule(static)
    for (std::int64_t block = 0; block < depth; ++block)
      for (std::int64_t panel = 0; panel < width; ++panel) pack(panel, block);
  }
}

}  // namespace switchyard::cpu
