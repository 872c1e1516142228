// The twins of tensor/cuda/mma.cuh against the layouts that the PTX ISA writes down, as plain loops. (On a real GPU the
// instructions themselves are what attention's tests check.)
#include "tensor/cuda/mma.cuh"

#include <gtest/gtest.h>

#include <array>

namespace switchyard::cuda {
namespace {

// Small whole numbers, without symmetry: products and sums are exact.
Bf16 value(int row, int column, int matrix) { return Bf16(float((row * 7 + column * 3 + matrix * 5) % 11 - 5)); }

unsigned pair(Bf16 first, Bf16 second) { return pack_bf16(float(first), float(second)); }

void run_warp(const std::function<void()>& body) { simt::run({"warp", 1, 32, 0}, body); }

TEST(CudaMma, MultipliesFragments) {
  float c[16][8];
  run_warp([&] {
    const int g = lane_id() / 4, t = lane_id() % 4;
    unsigned a[4], b[2];
    for (int i = 0; i < 4; ++i) {
      const int row = i % 2 ? g + 8 : g, column = 2 * t + (i >= 2 ? 8 : 0);
      a[i] = pair(value(row, column, 0), value(row, column + 1, 0));
    }
    for (int i = 0; i < 2; ++i) b[i] = pair(value(2 * t + 8 * i, g, 1), value(2 * t + 8 * i + 1, g, 1));
    float part[4];
    for (int i = 0; i < 4; ++i) part[i] = float(100 * (i < 2 ? g : g + 8) + 2 * t + i % 2);
    mma(part, a, b[0], b[1]);
    for (int i = 0; i < 4; ++i) c[i < 2 ? g : g + 8][2 * t + i % 2] = part[i];
  });
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      float sum = float(100 * i + j);
      for (int k = 0; k < 16; ++k) sum += float(value(i, k, 0)) * float(value(k, j, 1));
      EXPECT_EQ(c[i][j], sum) << i << ' ' << j;
    }
}

TEST(CudaMma, LoadsMatrices) {
  alignas(16) Bf16 matrices[4][8][8];
  for (int m = 0; m < 4; ++m)
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 8; ++j) matrices[m][i][j] = value(i, j, m);
  run_warp([&] {
    const int g = lane_id() / 4, t = lane_id() % 4;
    unsigned straight[4], transposed[4];
    load_matrices(straight, matrices[lane_id() / 8][lane_id() % 8]);
    load_matrices_transposed(transposed, matrices[lane_id() / 8][lane_id() % 8]);
    for (int m = 0; m < 4; ++m) {
      EXPECT_EQ(straight[m], pair(value(g, 2 * t, m), value(g, 2 * t + 1, m)));
      EXPECT_EQ(transposed[m], pair(value(2 * t, g, m), value(2 * t + 1, g, m)));
    }
  });
}

TEST(CudaMma, CopiesLandAtTheirWait) {
  using Sixteen = std::array<float, 4>;
  alignas(16) const Sixteen from[2] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  alignas(16) Sixteen to[3] = {};
  AsyncCopies copies;
  copies.copy(&to[0], &from[0], true);
  copies.copy(&to[1], &from[1], false);
  copies.commit();
  copies.copy(&to[2], &from[1], true);
  copies.commit();
  for (const Sixteen& x : to) EXPECT_TRUE(std::isnan(x[0])) << "before its wait";
  copies.wait<1>();
  EXPECT_EQ(to[0], from[0]);
  EXPECT_EQ(to[1], Sixteen{});
  EXPECT_TRUE(std::isnan(to[2][0])) << "of a later group";
  copies.wait();
  EXPECT_EQ(to[2], from[1]);
}

TEST(CudaMma, RoundsPairsAndPowers) {
  EXPECT_EQ(pack_bf16(1, -2), 0xc0003f80u);
  EXPECT_EQ(exp2_approx(3), 8);
  EXPECT_EQ(exp2_approx(-INFINITY), 0);
  EXPECT_EQ(exp2_approx(-130), 0) << "subnormal";
}

}  // namespace
}  // namespace switchyard::cuda
