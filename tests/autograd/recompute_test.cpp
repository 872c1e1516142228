#include "autograd/recompute.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::check_gradients, test::floats, test::random;

// The sum of all elements, as one number of shape (1).
Variable total(const Variable& x) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.value().numel(); ++i) sum += test::at(x.value(), i);
  return record("total", floats({1}, {static_cast<float>(sum)}), {x}, [shape = x.shape()](const Tensor& dy) -> Grads {
    Tensor dx = Tensor::empty(shape, DType::f32, Device{});
    std::fill_n(dx.data<float>(), dx.numel(), dy.data<float>()[0]);
    return {dx};
  });
}

// Two results that share a part of the body, as a layer's output and its balance loss do.
struct Body {
  Variable w;
  int* runs;

  Recomputed operator()(const Variable& x) const {
    ++*runs;
    const Variable shared = rms_norm(x, w, 1e-5f);
    return {add(x, activate(shared, Activation::gelu)), total(rms_norm(shared, w, 1e-5f))};
  }
};

// y and extra in one tensor (R + 1, D), so that a loss of both has one gradient.
Variable joined(const Recomputed& result) {
  const Tensor &y = result.y.value(), &extra = result.extra.value();
  Tensor both = Tensor::zeros({y.dim(0) + 1, y.dim(1)}, DType::f32, Device{});
  std::copy_n(y.data<float>(), y.numel(), both.data<float>());
  both.data<float>()[y.numel()] = extra.data<float>()[0];
  return record("joined", both, {result.y, result.extra}, [rows = y.dim(0)](const Tensor& d) -> Grads {
    return {d.rows(0, rows), floats({1}, {d.rows(rows, rows + 1).data<float>()[0]})};
  });
}

TEST(Recompute, GradientsOfBothResults) {
  int runs = 0;
  check_gradients({Variable(random({3, 6}, 1), true), Variable(random({6}, 2), true)}, [&](auto& in) {
    return joined(recompute(in[0], Body{in[1], &runs}));
  });
}

TEST(Recompute, GivesTheBitsOfThePlainBody) {
  const Tensor x = random({3, 6}, 1), w = random({6}, 2), dy = random({4, 6}, 3);
  int runs = 0;
  const auto gradients = [&](bool again) {
    Variable vx(x, true), vw(w, true);
    const Body body{vw, &runs};
    Variable y = joined(again ? recompute(vx, body) : body(vx));
    y.backward(dy);
    return std::vector{y.value(), vx.grad(), vw.grad()};
  };
  const auto plain = gradients(false);
  EXPECT_EQ(runs, 1);
  const auto again = gradients(true);
  EXPECT_EQ(runs, 3);  // once forward, once in backward though two gradients arrive
  for (std::size_t i = 0; i < plain.size(); ++i) test::expect_near(again[i], plain[i], 0);
}

TEST(Recompute, OneOfTheResultsMayStayUnused) {
  int runs = 0;
  for (bool use_y : {true, false}) {
    const auto pick = [use_y](const Recomputed& r) { return use_y ? r.y : r.extra; };
    check_gradients({Variable(random({3, 6}, 1), true), Variable(random({6}, 2), true)}, [&](auto& in) {
      return pick(recompute(in[0], Body{in[1], &runs}));
    });
  }
}

TEST(Recompute, ParametersLearnThoughXIsConstant) {
  int runs = 0;
  Variable x(random({3, 6}, 1)), w(random({6}, 2), true);
  check_gradients({x, w}, [&](auto& in) { return joined(recompute(in[0], Body{in[1], &runs})); });
  EXPECT_FALSE(x.grad());
}

TEST(Recompute, WithoutAnExtraResult) {
  check_gradients({Variable(random({3, 6}, 1), true), Variable(random({6}, 2), true)}, [](auto& in) {
    return recompute(in[0], [w = in[1]](const Variable& x) { return Recomputed{rms_norm(x, w, 1e-5f), {}}; }).y;
  });
}

TEST(Recompute, NestsAndChains) {
  int runs = 0;
  check_gradients({Variable(random({2, 4}, 1), true), Variable(random({4}, 2), true)}, [&](auto& in) {
    const auto outer = [body = Body{in[1], &runs}](const Variable& x) {
      const Recomputed first = recompute(x, body);
      const Recomputed second = recompute(first.y, body);
      return Recomputed{second.y, add(first.extra, second.extra)};
    };
    return joined(recompute(in[0], outer));
  });
}

TEST(Recompute, HooksOfParametersFireOnce) {
  int runs = 0, hooks = 0;
  Variable x(random({3, 6}, 1), true), w(random({6}, 2), true);
  w.on_grad([&] { ++hooks; });
  joined(recompute(x, Body{w, &runs})).backward(random({4, 6}, 3));
  EXPECT_EQ(hooks, 1);
}

TEST(Recompute, KeepsOnlyXUntilBackward) {
  const Tensor kept = random({1}, 9);
  Variable x(random({3, 6}, 1), true);
  const auto body = [&kept](const Variable& x) {
    return Recomputed{record("keeps", x.value(), {x}, [kept](const Tensor& dy) -> Grads { return {dy}; }), {}};
  };
  Variable y = recompute(x, body).y;
  EXPECT_TRUE(kept.sole_owner());
  y.backward(random({3, 6}, 2));
  EXPECT_TRUE(kept.sole_owner());
  EXPECT_TRUE(x.grad());
}

TEST(Recompute, RunsOnceAndRecordsNothingUnderNoGrad) {
  int runs = 0;
  const NoGrad guard;
  const Recomputed result = recompute(Variable(random({3, 6}, 1), true), Body{Variable(random({6}, 2), true), &runs});
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(result.y.requires_grad());
  EXPECT_FALSE(result.extra.requires_grad());
}

}  // namespace
}  // namespace switchyard
