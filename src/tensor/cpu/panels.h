#pragma once

#include "tensor/kernels.h"

// bf16 matrices in the form that the micro-kernels read: panels of 32 rows of a left operand or 32 columns of a right
// one, cut into 32 x 32 blocks along k, zero beyond the matrix. A block holds
//   left   [row][k]         what a tile register takes as A
//   right  [k / 2][col][2]  what a tile register takes as B: pairs along k beside each other
// and a panel's blocks follow each other along k.
namespace switchyard::cpu {

inline constexpr std::int64_t kPanel = 32;                   // rows, columns and depth of a block
inline constexpr std::int64_t kBlockSize = kPanel * kPanel;  // elements of a block

constexpr std::int64_t panels(std::int64_t n) { return (n + kPanel - 1) / kPanel; }

// Elements that a packed (k, n) right operand takes.
constexpr std::int64_t packed_elements(std::int64_t k, std::int64_t n) { return panels(k) * panels(n) * kBlockSize; }

// A matrix in memory: element (i, j) lies at data[i * pitch + j].
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t pitch = 0;
};

// One block from the corner of the matrix `a` on, of which `rows` x `cols` elements exist (at most 32 x 32, as they lie
// in memory). Trans says that the operand is the matrix's transpose.
void pack_left_block(bf16* block, Rows<const bf16> a, std::int64_t rows, std::int64_t cols, Trans ta);
void pack_right_block(bf16* block, Rows<const bf16> b, std::int64_t rows, std::int64_t cols, Trans tb);

// The same corner of an f32 matrix w, rounded to bf16, as right operand w^T and as right operand w.
void pack_weight_block(bf16* block_transposed, bf16* block, Rows<const float> w, std::int64_t rows, std::int64_t cols);

// The whole right operand op(b) (k, n), panel after panel, by all threads where the caller is alone.
void pack_right(bf16* packed, Rows<const bf16> b, std::int64_t k, std::int64_t n, Trans tb);

}  // namespace switchyard::cpu
