#include "layers/parameter_maker.h"

#include <gtest/gtest.h>

#include "slices.h"
#include "tensor/philox.h"

namespace switchyard {
namespace {

using test::expect_near, test::slice_of;

constexpr Init kInit{.std = 0.5, .limit = 2};

// Of a seed, a name and an element's place alone.
Tensor definition(std::uint64_t seed, const std::string& name, Shape shape) {
  const PhiloxKey key = philox_key(seed, "init " + name);
  std::vector<float> values;
  for (std::int64_t i = 0; i < shape.numel(); ++i)
    values.push_back(static_cast<float>(kInit.std * normal(key, static_cast<std::uint64_t>(i), kInit.limit)));
  return test::floats(shape, values);
}

TEST(ParameterMaker, AMatrixIsTheDefinition) {
  ParameterMaker make(7, Device{});
  const Tensor w = make.matrix("w", {5, 3}, kInit).value();
  expect_near(w, definition(7, "w", {5, 3}), 0);
  for (std::int64_t i = 0; i < w.numel(); ++i) EXPECT_LE(std::abs(test::at(w, i)), kInit.std * kInit.limit);
  expect_near(make.ones("norm", {4}).value(), test::floats({4}, {1, 1, 1, 1}), 0);

  const Parameters made = make.take();
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(made[0].name, "w");
  EXPECT_EQ(made[0].decay, Decay::yes);
  EXPECT_EQ(made[1].decay, Decay::no);
  for (const Parameter& p : made) {
    EXPECT_EQ(p.replicas, Replicas::tokens);
    EXPECT_EQ(p.boxes, (std::vector<Box>{{{}, p.global_shape}}));
    EXPECT_TRUE(p.variable.requires_grad());
  }
}

// Parts that continue one another in memory are listed as one, and those that do not stay apart.
TEST(ParameterMaker, PartsHoldTheWholesElements) {
  struct Case {
    Shape whole;
    std::vector<Box> boxes;
    Shape local;
    std::vector<Box> listed;
  };
  const Box rows{{}, {6, 4}}, stack{{}, {3, 4, 5}};
  const Box first = cut(stack, 0, 0, 1), second = cut(stack, 0, 1, 2), last = cut(stack, 0, 2, 3);
  const std::vector<Case> cases{
      {rows.shape, {cut(rows, 0, 1, 2), cut(rows, 0, 4, 6)}, {3, 4}, {cut(rows, 0, 1, 2), cut(rows, 0, 4, 6)}},
      {rows.shape, {cut(rows, 0, 1, 2), cut(rows, 0, 2, 5)}, {4, 4}, {cut(rows, 0, 1, 5)}},
      {rows.shape, {cut(rows, 1, 0, 2), cut(rows, 1, 2, 4)}, {12, 2}, {cut(rows, 1, 0, 2), cut(rows, 1, 2, 4)}},
      {stack.shape, {cut(first, 1, 0, 2), cut(first, 1, 2, 4), second}, {2, 4, 5}, {cut(stack, 0, 0, 2)}},
      {stack.shape,
       {cut(first, 1, 1, 2), cut(first, 1, 3, 4), cut(last, 1, 1, 2)},
       {3, 5},
       {cut(first, 1, 1, 2), cut(first, 1, 3, 4), cut(last, 1, 1, 2)}},
  };
  for (const Case& c : cases) {
    ParameterMaker make(3, Device{});
    make.part("a", c.whole, c.boxes, c.local, kInit);
    make.experts("b", c.whole, c.boxes, c.local, kInit);
    for (const Parameter& p : make.take()) {
      EXPECT_EQ(p.boxes, c.listed);
      EXPECT_EQ(p.replicas, p.name == "a" ? Replicas::data : Replicas::expert_data);
      expect_near(p.variable.value(), slice_of(definition(3, p.name, c.whole), p), 0);
    }
  }
}

}  // namespace
}  // namespace switchyard
