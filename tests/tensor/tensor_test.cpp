#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "grad_check.h"

namespace switchyard {
namespace {

using test::floats, test::ints;

// Runs `body` and returns the text of the Error it throws.
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Shape, CountsAndReplacesAxesFromBothEnds) {
  const Shape shape{2, 3, 5};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape[-1], 5);
  EXPECT_EQ(shape.numel(), 30);
  EXPECT_EQ(shape.with(-2, 7), (Shape{2, 7, 5}));
  EXPECT_NE(shape, (Shape{2, 3}));
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{4, 0}).numel(), 0);
  EXPECT_EQ(text(shape), "(2, 3, 5)");
  EXPECT_THROW((Shape{1, 2, 3, 4, 5}), Error);
}

TEST(DType, RoundsToNearestEvenAndKeepsNaN) {
  const auto bits = [](float x) { return bf16(x).bits; };
  EXPECT_EQ(bits(1.0f), 0x3f80);
  EXPECT_EQ(bits(1.0f + 0x1p-8f), 0x3f80);                     // halfway: to even, down
  EXPECT_EQ(bits(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);          // above halfway
  EXPECT_EQ(bits(1.0f + 3 * 0x1p-8f), 0x3f82);                 // halfway: to even, up
  EXPECT_EQ(bits(std::numeric_limits<float>::max()), 0x7f80);  // beyond the largest bf16: infinity
  EXPECT_EQ(bits(-std::numeric_limits<float>::infinity()), 0xff80);
  EXPECT_EQ(bits(-0.0f), 0x8000);
  EXPECT_EQ(bits(0x1p-133f), 0x0001);  // the smallest denormal
  // A NaN with all its low bits set would round to zero if it were a number.
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7fffffffu)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
  for (std::uint32_t b = 0; b < 0x7f80; ++b) ASSERT_EQ(bits(std::bit_cast<float>(b << 16)), b);
}

TEST(Tensor, ViewsShareMemoryAndCopiesAreViews) {
  Tensor a = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_TRUE(a.sole_owner());
  Tensor flat = a.view({6}), row = a.rows(1, 2);
  EXPECT_FALSE(a.sole_owner());
  EXPECT_EQ(row.shape(), (Shape{1, 3}));
  row.data<float>()[0] = 40;
  EXPECT_EQ(flat.data<float>()[3], 40);
  EXPECT_EQ(row.rows(0, 1).rows(1, 1).numel(), 0);
  EXPECT_EQ(a.view({3, 2}).rows(1, 3).rows(1, 2).data<float>()[1], 6);  // offsets add up
}

TEST(Tensor, SoleOwnerAgainWhenTheOtherViewIsGone) {
  const Tensor a = floats({2}, {1, 2});
  { const Tensor view = a.rows(0, 1); }
  EXPECT_TRUE(a.sole_owner());
}

TEST(Tensor, SaysWhatDoesNotFit) {
  const Tensor a = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_NE(error_of([&] { (void)a.view({4}); }).find("view: cannot see (2, 3) as (4)"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)a.rows(1, 3); }).find("rows: [1, 3) is outside (2, 3)"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)a.rows(-1, 1); }).find("outside"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)a.data<bf16>(); }).find("tensor holds f32, asked for bf16"), std::string::npos);
  EXPECT_NE(error_of([&] { floats({3}, {1, 2}); }).find("2 values for a tensor (3)"), std::string::npos);
}

TEST(Tensor, ZerosOfEveryTypeAndSize) {
  for (DType dtype : {DType::f32, DType::bf16, DType::i32, DType::i64, DType::u16, DType::u8})
    for (std::int64_t n : {0, 1, 7, 100'003}) {
      const Tensor t = Tensor::zeros({n}, dtype, Device{});
      EXPECT_EQ(t.size_in_bytes(), static_cast<std::size_t>(n) * size_of(dtype));
      for (std::size_t i = 0; i < t.size_in_bytes(); ++i) ASSERT_EQ(t.bytes()[i], std::byte{0});
      std::memset(Tensor(t).bytes(), 0xff, t.size_in_bytes());  // so that a reused block is not zero by chance
    }
}

TEST(Tensor, CastConvertsOnceAndElseIsTheSameTensor) {
  const Tensor x = test::random({3, 5}, 1);
  EXPECT_EQ(cast(x, DType::f32).bytes(), x.bytes());
  EXPECT_EQ(to_device(x, Device{}).bytes(), x.bytes());
  const Tensor y = cast(x, DType::bf16);
  EXPECT_EQ(y.dtype(), DType::bf16);
  for (std::int64_t i = 0; i < 15; ++i) EXPECT_EQ(y.data<bf16>()[i].bits, bf16(x.data<float>()[i]).bits);
  EXPECT_EQ(test::at(cast(y, DType::f32), 4), test::at(y, 4));
}

TEST(Tensor, TheEmptyTensorStandsForNoValue) {
  EXPECT_FALSE(Tensor{});
  EXPECT_TRUE(Tensor::empty({0, 4}, DType::i32, Device{}));
  EXPECT_EQ(ints({2}, {3, -4}).data<std::int32_t>()[1], -4);
}

}  // namespace
}  // namespace switchyard
