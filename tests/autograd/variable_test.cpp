#include "autograd/variable.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::expect_near, test::floats;

Variable leaf(float value) { return Variable(floats({1}, {value}), true); }
float value_of(const Tensor& t) { return t.data<float>()[0]; }

// y = factor x, which keeps `kept` alive.
Variable scaled(const Variable& x, float factor, Tensor kept = {}) {
  return record("scaled", floats({1}, {factor * value_of(x.value())}), {x},
                [factor, kept](const Tensor& dy) -> Grads { return {floats({1}, {factor * value_of(dy)})}; });
}

TEST(Variable, CopiesAreHandlesOfOneNode) {
  Variable a = leaf(3), b = a;
  b.accumulate(floats({1}, {2}));
  EXPECT_EQ(value_of(a.grad()), 2);
  a.zero_grad();
  EXPECT_FALSE(b.grad());
  EXPECT_FALSE(Variable{});
  EXPECT_FALSE(Variable{}.requires_grad());
}

TEST(Variable, SharesTheFirstGradientAndCopiesItBeforeAdding) {
  Variable a = leaf(0), b = leaf(0);
  const Tensor dy = floats({1}, {1});
  a.accumulate(dy);
  b.accumulate(dy);
  EXPECT_EQ(a.grad().bytes(), dy.bytes());
  a.accumulate(floats({1}, {5}));
  EXPECT_EQ(value_of(a.grad()), 6);
  EXPECT_EQ(value_of(b.grad()), 1);
  EXPECT_EQ(value_of(dy), 1);
}

TEST(Variable, AddsInPlaceToAGradientOfItsOwn) {
  Variable a = leaf(0);
  a.accumulate(floats({1}, {1}));
  const std::byte* before = a.grad().bytes();
  a.accumulate(floats({1}, {5}));
  EXPECT_EQ(a.grad().bytes(), before);
}

TEST(Variable, RefusesAGradientOfAnotherShape) {
  Variable a = leaf(0);
  EXPECT_THROW(a.accumulate(floats({2}, {1, 2})), Error);
}

TEST(Backward, SumsOverEveryUse) {
  Variable x = leaf(2);
  Variable y = add(add(x, scaled(x, 3)), scaled(scaled(x, 5), 7));
  EXPECT_EQ(value_of(y.value()), 2 * (1 + 3 + 35));
  y.backward(floats({1}, {1}));
  EXPECT_EQ(value_of(x.grad()), 1 + 3 + 35);
}

TEST(Backward, ADiamondGoesThroughEachNodeOnce) {
  Variable x = leaf(1);
  int calls = 0;
  const Variable middle = record("middle", floats({1}, {2}), {x}, [&calls](const Tensor& dy) -> Grads {
    ++calls;
    return {floats({1}, {2 * value_of(dy)})};
  });
  Variable y = add(add(scaled(middle, 3), middle), scaled(middle, 5));
  y.backward(floats({1}, {1}));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(value_of(x.grad()), 2 * (3 + 1 + 5));
}

TEST(Backward, AddsToTheGradientsOfEarlierGraphs) {
  Variable x = leaf(1);
  for (int micro_batch = 0; micro_batch < 3; ++micro_batch) scaled(x, 4).backward(floats({1}, {1}));
  EXPECT_EQ(value_of(x.grad()), 12);
}

TEST(Backward, SkipsWhatNeedsNoGradientAndEmptyGradients) {
  Variable x = leaf(1), constant(floats({1}, {2}));
  Variable y = record("y", floats({1}, {0}), {x, constant, Variable{}}, [](const Tensor& dy) -> Grads {
    return {Tensor{}, dy, dy};
  });
  y.backward(floats({1}, {1}));
  EXPECT_FALSE(x.grad());
  EXPECT_FALSE(constant.grad());
}

// Whatever the graph's shape: two chains that were recorded in turns go backward in turns.
TEST(Backward, GoesThroughOpsInTheReverseOfTheirOrder) {
  std::string order;
  const auto step = [&order](const Variable& x, char name) {
    return record("step", floats({1}, {0}), {x}, [&order, name](const Tensor& dy) -> Grads {
      order += name;
      return {dy};
    });
  };
  const Variable a = step(leaf(1), 'a'), b = step(leaf(1), 'b'), c = step(b, 'c'), d = step(a, 'd'), e = step(c, 'e');
  add(d, e).backward(floats({1}, {1}));
  EXPECT_EQ(order, "edcba");
}

// A node that no gradient reaches still counts as done for its inputs' hooks.
TEST(Backward, ABranchWithoutGradientHoldsNothingUp) {
  Variable x = leaf(1);
  int hooks = 0;
  x.on_grad([&] { ++hooks; });
  const Variable silent =
      record("silent", floats({1}, {0}), {scaled(x, 2)}, [](const Tensor&) -> Grads { return {{}}; });
  add(silent, x).backward(floats({1}, {1}));
  EXPECT_EQ(hooks, 1);
  EXPECT_EQ(value_of(x.grad()), 1);
}

TEST(Backward, SaysWhichOpReturnedTheWrongNumberOfGradients) {
  Variable x = leaf(1);
  Variable y = record("lame", floats({1}, {0}), {x, x}, [](const Tensor& dy) -> Grads { return {dy}; });
  try {
    y.backward(floats({1}, {1}));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("lame: 1 gradients for 2 inputs"), std::string::npos) << error.what();
  }
}

TEST(Backward, RefusesASecondPassThroughOneGraph) {
  Variable x = leaf(1), shared = scaled(x, 2), y = scaled(shared, 3), z = scaled(shared, 5);
  y.backward(floats({1}, {1}));
  EXPECT_THROW(y.backward(floats({1}, {1})), Error);
  EXPECT_THROW(z.backward(floats({1}, {1})), Error);
  EXPECT_EQ(value_of(x.grad()), 6);
}

// (2 x, 3 x); `seen` gets the two gradients of each call, 0 for one that never came.
std::pair<Variable, Variable> two(const Variable& x, std::vector<std::pair<float, float>>& seen, Tensor kept = {}) {
  const float value = value_of(x.value());
  return record("two", floats({1}, {2 * value}), floats({1}, {3 * value}), {x},
                [&seen, kept](const Tensor& dfirst, const Tensor& dsecond) -> Grads {
                  const float a = dfirst ? value_of(dfirst) : 0, b = dsecond ? value_of(dsecond) : 0;
                  seen.emplace_back(a, b);
                  return {floats({1}, {2 * a + 3 * b})};
                });
}

TEST(Backward, OfTwoResultsRunsOnceWithBothGradients) {
  std::vector<std::pair<float, float>> seen;
  Variable x = leaf(1);
  int hooks = 0;
  x.on_grad([&] { ++hooks; });
  const auto [first, second] = two(x, seen);
  add(add(scaled(first, 5), scaled(second, 7)), scaled(first, 11)).backward(floats({1}, {1}));
  EXPECT_EQ(seen, (std::vector<std::pair<float, float>>{{16, 7}}));
  EXPECT_EQ(value_of(x.grad()), 2 * 16 + 3 * 7);
  EXPECT_EQ(hooks, 1);
}

TEST(Backward, OfTwoResultsRunsWithEitherGradientAlone) {
  std::vector<std::pair<float, float>> seen;
  Variable x = leaf(1);
  const Tensor kept = floats({1}, {0}), dy = floats({1}, {1});
  two(x, seen, kept).first.backward(dy);
  two(x, seen, kept).second.backward(dy);
  EXPECT_EQ(seen, (std::vector<std::pair<float, float>>{{1, 0}, {0, 1}}));
  EXPECT_EQ(value_of(x.grad()), 5);
  EXPECT_TRUE(kept.sole_owner());
}

TEST(Backward, RefusesASecondPassThroughTheOtherOfTwoResults) {
  std::vector<std::pair<float, float>> seen;
  auto [first, second] = two(leaf(1), seen);
  second.backward(floats({1}, {1}));
  EXPECT_THROW(first.backward(floats({1}, {1})), Error);
}

TEST(Backward, LetsGoOfWhatWasSaved) {
  const Tensor kept = floats({1}, {0});
  Variable x = leaf(1), y = scaled(x, 2, kept);
  EXPECT_FALSE(kept.sole_owner());
  y.backward(floats({1}, {1}));
  EXPECT_TRUE(kept.sole_owner());
}

// Whoever wants a value in backward captures it.
TEST(Backward, TheGraphKeepsNoValueOfItsOwn) {
  const Tensor between = floats({1}, {2}), two_of_them = floats({1}, {0});
  Variable x = leaf(1), y;
  {
    const Variable middle = record("middle", between, {x}, [](const Tensor& dy) -> Grads { return {dy}; });
    const auto [first, second] = record("two", two_of_them, two_of_them, {middle},
                                        [](const Tensor& dfirst, const Tensor&) -> Grads { return {dfirst}; });
    y = add(first, second);
    EXPECT_FALSE(between.sole_owner());
  }
  EXPECT_TRUE(between.sole_owner());
  EXPECT_TRUE(two_of_them.sole_owner());
  y.backward(floats({1}, {3}));
  EXPECT_EQ(value_of(x.grad()), 3);
}

TEST(Backward, HooksFireOnceAfterTheLastContribution) {
  Variable a = leaf(1), b = leaf(1);
  std::vector<std::pair<char, float>> seen;
  a.on_grad([&] { seen.emplace_back('a', value_of(a.grad())); });
  b.on_grad([&] { seen.emplace_back('b', value_of(b.grad())); });
  Variable first = add(scaled(a, 2), a);  // a twice near the leaves, and once more at the top
  Variable y = add(add(first, scaled(b, 3)), scaled(a, 10));
  y.backward(floats({1}, {1}));
  ASSERT_EQ(seen.size(), 2u);
  for (const auto& [name, gradient] : seen) EXPECT_EQ(gradient, name == 'a' ? 13 : 3);
}

TEST(Backward, HooksFireForALeafUsedTwiceByOneNode) {
  Variable a = leaf(1);
  int hooks = 0;
  a.on_grad([&] {
    ++hooks;
    EXPECT_EQ(value_of(a.grad()), 2);
  });
  add(a, a).backward(floats({1}, {1}));
  EXPECT_EQ(hooks, 1);
}

TEST(Backward, FromALeafItselfFiresItsHook) {
  Variable a = leaf(1);
  int hooks = 0;
  a.on_grad([&] { ++hooks; });
  a.backward(floats({1}, {4}));
  EXPECT_EQ(hooks, 1);
  EXPECT_EQ(value_of(a.grad()), 4);
}

Variable deep_chain(int length, Variable y, const Tensor& kept) {
  for (int i = 0; i < length; ++i)
    y = record("link", y.value(), {y, y}, [kept](const Tensor& dy) -> Grads { return {dy, {}}; });
  return y;
}

// A recursive walk keeps a hundred bytes a node at least, a recursive end 32: no stack of 8 MiB holds these.
TEST(DeepGraph, GoesBackwardWithoutRecursion) {
  Variable x = leaf(1);
  deep_chain(100'000, x, {}).backward(floats({1}, {3}));
  EXPECT_EQ(value_of(x.grad()), 3);
}

TEST(DeepGraph, DiesWithoutRecursion) {
  const Tensor kept = floats({1}, {0});
  deep_chain(300'000, leaf(1), kept);
  EXPECT_TRUE(kept.sole_owner());
}

TEST(NoGrad, RecordsNothingAndEndsWithItsScope) {
  Variable x = leaf(1);
  {
    const NoGrad guard;
    EXPECT_FALSE(is_recording());
    EXPECT_FALSE(scaled(x, 2).requires_grad());
    {
      const Recording inner;
      EXPECT_TRUE(scaled(x, 2).requires_grad());
    }
    EXPECT_FALSE(is_recording());
  }
  EXPECT_TRUE(scaled(x, 2).requires_grad());
  EXPECT_FALSE(scaled(Variable(floats({1}, {1})), 2).requires_grad());
}

TEST(NoGrad, KeepsNothingAlive) {
  const Tensor kept = floats({1}, {0});
  const NoGrad guard;
  const Variable y = scaled(leaf(1), 2, kept);
  EXPECT_TRUE(kept.sole_owner());
}

TEST(Add, SumsAndSendsTheGradientBothWays) {
  test::check_gradients({Variable(test::random({3, 5}, 1), true), Variable(test::random({3, 5}, 2), true)},
                        [](auto& in) { return add(in[0], in[1]); });
  const Tensor a = test::random({4}, 3);
  expect_near(
      add(Variable(a), Variable(a)).value(),
      floats({4}, {2 * a.data<float>()[0], 2 * a.data<float>()[1], 2 * a.data<float>()[2], 2 * a.data<float>()[3]}), 0);
  EXPECT_THROW(add(Variable(a), Variable(test::random({5}, 1))), Error);
  EXPECT_THROW(add(Variable(a), Variable(cast(a, DType::bf16))), Error);
}

// bf16 gradients of two uses are summed in f32 and rounded once.
TEST(Add, SumsBf16Gradients) {
  Variable x(cast(test::random({64}, 1), DType::bf16), true);
  const Tensor dy = cast(test::random({64}, 2), DType::bf16);
  add(x, x).backward(dy);
  for (std::int64_t i = 0; i < 64; ++i) EXPECT_EQ(test::at(x.grad(), i), 2 * test::at(dy, i));
}

TEST(Variable, WaitsForAValueOnItsWayOnceAndMakesTheComputeCopyAnew) {
  Variable w(test::random({4, 4}, 1), true);
  const Tensor one = cast(floats({1, 4}, {1, 0, 0, 0}), DType::bf16);
  const auto first = [&] { return test::at(linear(Variable(one), w).value(), 0); };
  EXPECT_EQ(first(), static_cast<float>(bf16(test::at(w.value(), 0))));
  int waited = 0;
  Tensor value = w.value();
  w.arrives([&waited, value]() mutable {
    ++waited;
    value.data<float>()[0] = 3;
  });
  EXPECT_EQ(waited, 0);
  EXPECT_EQ(first(), 3);
  EXPECT_EQ(first(), 3);
  EXPECT_EQ(waited, 1);
}

}  // namespace
}  // namespace switchyard
