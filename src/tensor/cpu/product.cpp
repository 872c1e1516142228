#include "tensor/cpu/product.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "tensor/cpu/microkernel.h"
#include "tensor/cpu/scratch.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// A block of c: rows [row, row_end) and columns [col, col_end), whose beginnings are multiples of a panel.
struct Block {
  const Product* product;
  std::int64_t row, row_end, col, col_end;
};

constexpr std::int64_t kLeftBytes = 512 << 10;  // of the left operand that one block reads: a share of the L2 cache

std::int64_t rows_at_once(const Product& p) {
  const std::int64_t rows = kLeftBytes / (std::max<std::int64_t>(p.k, 1) * static_cast<std::int64_t>(sizeof(bf16)));
  return std::max(rows / kPanel, std::int64_t{1}) * kPanel;
}

// The panel of op(a) from `row` on: in place where its blocks lie in memory as the kernel wants them, else packed.
LeftPanel left_panel(const Product& p, std::int64_t row, bf16* packed) {
  const std::int64_t rows = std::min(p.m - row, kPanel), blocks = panels(p.k);
  if (p.ta == Trans::no && rows == kPanel && p.k % kPanel == 0)
    return {.data = p.a.data + row * p.a.pitch, .row_pitch = p.a.pitch, .block_pitch = kPanel};
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t k = block * kPanel, depth = std::min(p.k - k, kPanel);
    if (p.ta == Trans::no)
      pack_left_block(packed + block * kBlockSize, {p.a.data + row * p.a.pitch + k, p.a.pitch}, rows, depth, p.ta);
    else
      pack_left_block(packed + block * kBlockSize, {p.a.data + k * p.a.pitch + row, p.a.pitch}, depth, rows, p.ta);
  }
  return {.data = packed};
}

template <class T>
void store(T* c, std::int64_t pitch, const float* tile, std::int64_t rows, std::int64_t cols, Into into) {
  for (std::int64_t i = 0; i < rows; ++i, c += pitch, tile += kPanel)
    if (into == Into::accumulate)
      for (std::int64_t j = 0; j < cols; ++j) c[j] = from_float<T>(to_float(c[j]) + tile[j]);
    else if (cols == kPanel)
      convert_row(c, tile, kPanel);
    else
      convert_row(c, tile, cols);
}

struct LeftScratch;
struct PanelScratch;

void run(const Block& block, const Microkernel& kernel) {
  const Product& p = *block.product;
  const std::int64_t blocks = panels(p.k), b_panel = p.b_panel ? p.b_panel : blocks * kBlockSize;
  const std::int64_t count = panels(block.row_end - block.row);
  bf16* packed = scratch<LeftScratch, bf16>(count * blocks * kBlockSize);
  auto* left = scratch<PanelScratch, LeftPanel>(count);
  for (std::int64_t i = 0; i < count; ++i)
    left[i] = left_panel(p, block.row + i * kPanel, packed + i * blocks * kBlockSize);

  alignas(64) float tile[kBlockSize];
  for (std::int64_t col = block.col; col < block.col_end; col += kPanel) {
    const bf16* right = p.b + col / kPanel * b_panel;
    const std::int64_t cols = std::min(p.n - col, kPanel);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = block.row + i * kPanel, rows = std::min(p.m - row, kPanel), at = row * p.c.pitch + col;
      if (p.c_dtype == DType::f32) {
        float* c = reinterpret_cast<float*>(p.c.data) + at;
        if (rows == kPanel && cols == kPanel) {
          kernel.multiply({c, p.c.pitch}, left[i], right, rows, blocks, p.into);
          continue;
        }
        kernel.multiply({tile, kPanel}, left[i], right, rows, blocks, Into::overwrite);
        store(c, p.c.pitch, tile, rows, cols, p.into);
      } else {
        kernel.multiply({tile, kPanel}, left[i], right, rows, blocks, Into::overwrite);
        store(reinterpret_cast<bf16*>(p.c.data) + at, p.c.pitch, tile, rows, cols, p.into);
      }
    }
  }
}

const Microkernel& best_kernel() {
  static const Microkernel kernel = microkernel(best_isa());
  return kernel;
}

}  // namespace

void multiply(const Product& p) {
  const Microkernel& kernel = best_kernel();
  const std::int64_t step = rows_at_once(p);
  kernel.begin();
  for (std::int64_t row = 0; row < p.m; row += step) run({&p, row, std::min(row + step, p.m), 0, p.n}, kernel);
  kernel.end();
}

void multiply_all(std::span<const Product> products) {
  // Enough blocks for threads of unequal speed, none so small that starting it costs more than making it.
  constexpr double kSmallest = 4e6, kBlocksPerThread = 8;  // multiply-adds
  double work = 0;
  for (const Product& p : products) work += static_cast<double>(p.m * p.n) * static_cast<double>(p.k + 1);
  const double share = std::max(work / (kBlocksPerThread * omp_get_max_threads()), kSmallest);

  std::vector<Block> blocks;
  for (const Product& p : products)
    for (std::int64_t row = 0, step = rows_at_once(p); row < p.m; row += step) {
      const std::int64_t row_end = std::min(row + step, p.m);
      const double column = static_cast<double>(row_end - row) * static_cast<double>(p.k + 1);
      const auto width = static_cast<std::int64_t>(share / column / kPanel + 1) * kPanel;
      for (std::int64_t col = 0; col < p.n; col += width)
        blocks.push_back({&p, row, row_end, col, std::min(col + width, p.n)});
    }
  const Microkernel& kernel = best_kernel();
#pragma omp parallel if (blocks.size() > 1)
  {
    kernel.begin();
#pragma omp for schedule(dynamic, 1)
    for (std::size_t i = 0; i < blocks.size(); ++i) run(blocks[i], kernel);
    kernel.end();
  }
}

}  // namespace switchyard::cpu
