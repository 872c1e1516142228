#pragma once

#include "tensor/cpu/panels.h"

namespace switchyard::cpu {

// A panel of a left operand: element (row, 32 block + k) lies at data[row * row_pitch + block * block_pitch + k].
// Packed blocks have pitches 32 and 1024; a row-major matrix is read in place with its own pitch and 32.
struct LeftPanel {
  const bf16* data = nullptr;
  std::int64_t row_pitch = kPanel, block_pitch = kBlockSize;
};

// One instruction set's way to multiply panels. A thread brackets its calls of `multiply` with begin and end, between
// which nothing else may use the matrix registers.
struct Microkernel {
  void (*begin)();
  // c (rows, 32) = or += a b: a left panel, of which 1 <= rows <= 32 rows count, and a packed right panel, both
  // `blocks` blocks deep; zero blocks make c zero or leave it. Sums in f32 along k. Reads a and writes c up to `rows`
  // rounded up to a multiple of 16.
  void (*multiply)(Rows<float> c, LeftPanel a, const bf16* b, std::int64_t rows, std::int64_t blocks, Into into);
  void (*end)();
};

enum class Isa { portable, avx512_bf16, amx };

// The best of this processor and this operating system.
Isa best_isa();
// Only for an instruction set up to best_isa().
Microkernel microkernel(Isa isa);

}  // namespace switchyard::cpu
