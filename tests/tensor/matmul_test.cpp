#include <cstring>
#include <thread>

#include "product_check.h"
#include "tensor/cpu/microkernel.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

using test::at;
using test::random_rows;

Tensor run(const Tensor& a, const Tensor& b, Trans ta, Trans tb, DType out) {
  Tensor c = Tensor::empty({a.dim(ta == Trans::yes ? 1 : 0), b.dim(tb == Trans::yes ? 0 : 1)}, out, Device{});
  kernels(Device{}).matmul(c, a, b, ta, tb, Into::overwrite);
  return c;
}

void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  EXPECT_EQ(std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()), 0);
}

struct Types {
  DType in, out;
};

class Matmul : public testing::TestWithParam<Types> {};

INSTANTIATE_TEST_SUITE_P(Types, Matmul,
                         testing::Values(Types{DType::f32, DType::f32}, Types{DType::bf16, DType::f32},
                                         Types{DType::bf16, DType::bf16}),
                         [](const auto& info) {
                           return std::string(name_of(info.param.in)) + "_" + name_of(info.param.out);
                         });

void expect_product(Types types, std::int64_t m, std::int64_t n, std::int64_t k) {
  for (Trans ta : {Trans::no, Trans::yes})
    for (Trans tb : {Trans::no, Trans::yes})
      for (Into into : {Into::overwrite, Into::accumulate}) {
        const Tensor a = random_rows(ta == Trans::yes ? Shape{k, m} : Shape{m, k}, types.in, 1);
        const Tensor b = random_rows(tb == Trans::yes ? Shape{n, k} : Shape{k, n}, types.in, 2);
        Tensor c = random_rows({m, n}, types.out, 3);
        const Tensor before = random_rows({m, n}, types.out, 3);
        kernels(Device{}).matmul(c, a, b, ta, tb, into);

        test::ProductCheck check{.m = m,
                                 .n = n,
                                 .k = k,
                                 .a = [&](auto i, auto l) { return at(a, ta == Trans::yes ? l * m + i : i * k + l); },
                                 .b = [&](auto l, auto j) { return at(b, tb == Trans::yes ? j * k + l : l * n + j); }};
        if (into == Into::accumulate) check.before = [&](auto i, auto j) { return at(before, i * n + j); };
        check(c);
      }
}

TEST_P(Matmul, IsTheDefinitionForEveryTransposeAndAccumulate) {
  for (std::int64_t m : {1, 17, 65})
    for (std::int64_t n : {3, 65})
      for (std::int64_t k : {1, 32, 47}) expect_product(GetParam(), m, n, k);
}

TEST_P(Matmul, SumsLongRows) { expect_product(GetParam(), 34, 3, 4100); }

TEST(Matmul, OfBf16DoesNotDependOnHowItIsCut) {
  constexpr std::int64_t kRows = 260, kCols = 600;
  const Tensor a = random_rows({kRows, 64}, DType::bf16, 1), b = random_rows({kCols, 64}, DType::bf16, 2);
  const Tensor whole = run(a, b, Trans::no, Trans::yes, DType::f32);
  for (std::int64_t row = 0; row < kRows; row += 100) {
    const std::int64_t end = std::min(row + 100, kRows);
    expect_same_bits(run(a.rows(row, end), b, Trans::no, Trans::yes, DType::f32), whole.rows(row, end));
  }
}

TEST_P(Matmul, OfNothing) {
  expect_product(GetParam(), 0, 5, 4);
  expect_product(GetParam(), 5, 0, 4);
  expect_product(GetParam(), 33, 40, 0);  // zeros, or what was there
}

TEST_P(Matmul, GivesTheSameBitsOnEveryCallAndInEveryThread) {
  const Tensor a = random_rows({130, 200}, GetParam().in, 1), b = random_rows({90, 200}, GetParam().in, 2);
  const Tensor expected = run(a, b, Trans::no, Trans::yes, GetParam().out);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) expect_same_bits(run(a, b, Trans::no, Trans::yes, GetParam().out), expected);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Matmul, OfBf16ReadsNothingBesideItsOperands) {
  // Infinities around a block of rows would turn into NaN if zero padding met them.
  constexpr std::int64_t kRows = 20, kDepth = 40, kCols = 24;
  Tensor a = random_rows({3 * kRows, kDepth}, DType::bf16, 1), b = random_rows({3 * kDepth, kCols}, DType::bf16, 2);
  const Tensor expected = run(a.rows(kRows, 2 * kRows), b.rows(kDepth, 2 * kDepth), Trans::no, Trans::no, DType::f32);
  for (Tensor* x : {&a, &b})
    for (std::int64_t i = 0; i < x->numel(); ++i)
      if (i < x->numel() / 3 || i >= x->numel() / 3 * 2) x->data<bf16>()[i] = bf16(INFINITY);
  expect_same_bits(run(a.rows(kRows, 2 * kRows), b.rows(kDepth, 2 * kDepth), Trans::no, Trans::no, DType::f32),
                   expected);
}

// Every instruction set that this processor has, on left panels in place and packed.
TEST(Microkernel, IsTheDefinition) {
  using namespace cpu;
  constexpr std::int64_t kBlocks = 3, kDepth = kBlocks * kPanel;
  const Tensor a = random_rows({kPanel, kDepth}, DType::bf16, 1), b = random_rows({kDepth, kPanel}, DType::bf16, 2);
  const Tensor before = test::random({kPanel, kPanel}, 3);
  Tensor packed_a = Tensor::empty({kPanel * kDepth}, DType::bf16, Device{}),
         packed_b = Tensor::empty({kDepth * kPanel}, DType::bf16, Device{});
  for (std::int64_t block = 0; block < kBlocks; ++block)
    pack_left_block(packed_a.data<bf16>() + block * kBlockSize, {a.data<bf16>() + block * kPanel, kDepth}, kPanel,
                    kPanel, Trans::no);
  pack_right(packed_b.data<bf16>(), {b.data<bf16>(), kPanel}, kDepth, kPanel, Trans::no);

  for (int isa = 0; isa <= static_cast<int>(best_isa()); ++isa)
    for (std::int64_t rows : {1, 16, 17, 32})
      for (std::int64_t blocks : {std::int64_t{0}, kBlocks})
        for (Into into : {Into::overwrite, Into::accumulate})
          for (bool in_place : {false, true}) {
            Tensor c = test::random({kPanel, kPanel}, 3);
            const LeftPanel left =
                in_place ? LeftPanel{a.data<bf16>(), kDepth, kPanel} : LeftPanel{packed_a.data<bf16>()};
            const Microkernel kernel = microkernel(static_cast<Isa>(isa));
            kernel.begin();
            kernel.multiply({c.data<float>(), kPanel}, left, packed_b.data<bf16>(), rows, blocks, into);
            kernel.end();

            test::ProductCheck check{.m = rows,
                                     .n = kPanel,
                                     .k = blocks * kPanel,
                                     .a = [&](auto i, auto l) { return at(a, i * kDepth + l); },
                                     .b = [&](auto l, auto j) { return at(b, l * kPanel + j); }};
            if (into == Into::accumulate) check.before = [&](auto i, auto j) { return at(before, i * kPanel + j); };
            check(c);
            const std::int64_t written = (rows + 15) / 16 * 16;
            for (std::int64_t i = written * kPanel; i < c.numel(); ++i) ASSERT_EQ(at(c, i), at(before, i));
          }
}

}  // namespace
}  // namespace switchyard
