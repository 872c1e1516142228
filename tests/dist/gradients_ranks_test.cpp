#include "dist/gradients.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "autograd/ops.h"
#include "autograd/recompute.h"
#include "dist/exchange.h"
#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

// The gradient that a rank brings for a parameter; none for every third.
Tensor local_gradient(std::size_t parameter, const Shape& shape, int rank) {
  if ((parameter + static_cast<std::size_t>(rank)) % 3 == 0) return {};
  return test::random(shape, static_cast<unsigned>(parameter * 100) + static_cast<unsigned>(rank), 1e3f);
}

Tensor sum_by_definition(std::size_t parameter, const Shape& shape, const std::vector<int>& ranks) {
  Tensor sum;
  for (int rank : ranks) {
    Tensor part = local_gradient(parameter, shape, rank);
    if (!part) part = Tensor::zeros(shape, DType::f32, Device{});
    for (std::int64_t i = 0; sum && i < sum.numel(); ++i) sum.data<float>()[i] += part.data<float>()[i];
    if (!sum) sum = part;
  }
  return sum;
}

// Whatever travels together, each parameter gets the bits of its own sum: over all ranks what is whole everywhere, over
// the ranks that hold the same part or the same experts what is not.
TEST(SumGradients, BucketsDoNotChangeABit) {
  const std::vector<Shape> shapes{{3, 5}, {1}, {40, 30}, {0, 4}, {7}, {64}, {2, 3, 4}, {11}, {9, 9}};
  test::on_ranks([&](ProcessGroup& world) {
    for (int parts : {1, 2}) {
      if (world.size() % parts != 0) continue;
      Mesh mesh({.tensor = parts, .expert = parts}, world);
      constexpr Replicas kReplicas[] = {Replicas::tokens, Replicas::expert_data, Replicas::data};
      for (std::int64_t bucket_bytes : {0, 100, 4096, 1 << 20}) {
        Parameters parameters;
        for (std::size_t p = 0; p < shapes.size(); ++p) {
          Variable variable(test::random(shapes[p], 1), true);
          if (const Tensor grad = local_gradient(p, shapes[p], world.rank())) variable.accumulate(grad);
          parameters.push_back(
              {.name = text("p", p), .variable = variable, .global_shape = shapes[p], .replicas = kReplicas[p % 3]});
        }
        sum_gradients(parameters, mesh, bucket_bytes);
        for (std::size_t p = 0; p < shapes.size(); ++p) {
          const Layout& layout = mesh.layout;
          const auto ranks = p % 3 == 0   ? layout.dense.peers(world.rank(), {Axis::dp, Axis::tp})
                             : p % 3 == 1 ? layout.expert.peers(world.rank(), {Axis::edp})
                                          : layout.dense.peers(world.rank(), {Axis::dp});
          const Tensor& grad = parameters[p].variable.grad();
          const Tensor expected = sum_by_definition(p, shapes[p], ranks);
          ASSERT_TRUE(grad);
          ASSERT_EQ(grad.shape(), shapes[p]);
          EXPECT_EQ(std::memcmp(grad.bytes(), expected.bytes(), grad.size_in_bytes()), 0)
              << parameters[p].name << ", buckets of " << bucket_bytes << ", " << describe(mesh.layout);
        }
      }
    }
  });
}

// Notes how many elements each all_reduce carries.
class NotingGroup final : public ProcessGroup {
 public:
  explicit NotingGroup(std::vector<std::int64_t>& calls) : calls_(calls) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void barrier() override {}
  [[noreturn]] void abort(int) override { std::abort(); }

 private:
  void do_all_reduce(Tensor& x, Reduce) override { calls_.push_back(x.numel()); }
  void do_broadcast(Tensor&, int) override {}
  void do_all_gather(Tensor&, const Tensor&) override {}
  void do_reduce_scatter(Tensor&, const Tensor&) override {}
  void do_all_to_all(Tensor&, std::span<const int>, const Tensor&, std::span<const int>) override {}
  std::unique_ptr<ProcessGroup> do_split(int) override { return make_self_group(); }

  std::vector<std::int64_t>& calls_;
};

TEST(SumGradients, BucketsFillUpButNotOver) {
  const auto world = make_self_group();
  Mesh mesh({}, *world);
  std::vector<std::int64_t> calls;
  mesh.tokens = std::make_unique<NotingGroup>(calls);
  Parameters parameters;
  for (std::int64_t n : {64, 96, 16, 480, 32, 32, 20, 160}) {
    const Variable variable(test::random({n}, 1), true);
    parameters.push_back({.name = text("p", n), .variable = variable, .global_shape = variable.shape()});
  }
  const auto calls_with = [&](std::int64_t bucket_bytes) {
    calls.clear();
    sum_gradients(parameters, mesh, bucket_bytes);
    return calls;
  };
  EXPECT_EQ(calls_with(640), (std::vector<std::int64_t>{160, 96, 480, 112, 64}));  // the 20 stand on a place of 32
  EXPECT_EQ(calls_with(0), (std::vector<std::int64_t>{160, 20, 32, 32, 480, 16, 96, 64}));
  EXPECT_EQ(calls_with(1 << 20), (std::vector<std::int64_t>{912}));
}

// backward() may leave one tensor as the gradient of two parameters.
TEST(SumGradients, ASharedGradientIsNotSummedTwice) {
  test::on_ranks([](ProcessGroup& world) {
    Mesh mesh({}, world);
    const auto n = static_cast<float>(world.size());
    for (std::int64_t bucket_bytes : {0, 1 << 20}) {
      const Tensor shared = test::floats({2}, {1, 2});
      Variable a(test::random({2}, 1), true), b(test::random({2}, 2), true);
      a.accumulate(shared);
      b.accumulate(shared);
      Parameters parameters{{.name = "a", .variable = a, .global_shape = a.shape()},
                            {.name = "b", .variable = b, .global_shape = b.shape()}};
      sum_gradients(parameters, mesh, bucket_bytes);
      for (Variable& v : std::vector{a, b}) test::expect_near(v.grad(), test::floats({2}, {n, 2 * n}), 0);
      test::expect_near(shared, test::floats({2}, {1, 2}), 0);
    }
  });
}

// Parameters of a model whose backward has collectives of its own, in a block that is recomputed and in one that is
// not; every rank brings other rows.
struct SmallModel {
  explicit SmallModel(ProcessGroup& world) : group(world) {
    for (unsigned i = 0; i < 4; ++i) add_parameter({6, 6}, i, Replicas::data);
    for (unsigned i = 4; i < 7; ++i) add_parameter({6}, i, i == 5 ? Replicas::expert_data : Replicas::data);
  }

  void add_parameter(Shape shape, unsigned seed, Replicas replicas) {
    const Variable variable(test::random(shape, seed), true);
    parameters.push_back({.name = text("p", seed), .variable = variable, .global_shape = shape, .replicas = replicas});
  }
  const Variable& p(std::size_t i) { return parameters[i].variable; }

  // Every row goes to the next rank.
  Variable pass_on(const Variable& x) {
    Exchange rows{.send = std::vector<int>(std::size_t(group.size())), .recv = {}};
    rows.recv = rows.send;
    rows.send[std::size_t((group.rank() + 1) % group.size())] = int(x.shape()[0]);
    rows.recv[std::size_t((group.rank() + group.size() - 1) % group.size())] = int(x.shape()[0]);
    return Outbound(x, {rows}, group).arrive(0);
  }

  Variable loss(unsigned batch) {
    Variable x(test::random({5, 6}, 50 * batch + unsigned(group.rank())));
    x = rms_norm(linear(x, p(0)), p(4), 1e-5f);
    x = recompute(x, [this](const Variable& in) -> Recomputed {
          return {add(in, pass_on(linear(rms_norm(pass_on(in), p(5), 1e-5f), p(1)))), {}};
        }).y;
    return rms_norm(linear(pass_on(linear(x, p(2))), p(3)), p(6), 1e-5f);
  }

  ProcessGroup& group;
  Parameters parameters;
};

// Leaving during the last of three backward passes changes no bit.
TEST(GradientBuckets, LeaveDuringBackwardWithTheSameBits) {
  test::on_ranks([](ProcessGroup& world) {
    for (int expert : {1, 2}) {
      if (world.size() % expert != 0) continue;
      Mesh mesh({.expert = expert}, world);
      SmallModel model(world);
      const Tensor dy = test::random({5, 6}, 7);
      const auto gradients = [&](std::int64_t bucket_bytes, bool early) {
        Shards shards(model.parameters, mesh, bucket_bytes, Masters::whole, DType::f32);
        GradientBuckets buckets(shards);
        for (int step = 0; step < 2; ++step) {  // used again
          for (Parameter& p : model.parameters) p.variable.zero_grad();
          for (unsigned batch = 0; batch < 3; ++batch) {
            Variable y = model.loss(batch);
            if (early && batch == 2) buckets.arm();
            y.backward(dy);
          }
          buckets.finish();
        }
        std::vector<Tensor> all;
        for (Parameter& p : model.parameters) all.push_back(p.variable.grad());
        return all;
      };
      const std::vector<Tensor> expected = gradients(0, false);
      for (std::int64_t bucket_bytes : {0, 200, 1 << 20}) {
        const std::vector<Tensor> actual = gradients(bucket_bytes, true);
        for (std::size_t p = 0; p < actual.size(); ++p)
          EXPECT_EQ(std::memcmp(actual[p].bytes(), expected[p].bytes(), actual[p].size_in_bytes()), 0)
              << model.parameters[p].name << ", buckets of " << bucket_bytes << ", " << describe(mesh.layout);
      }
    }
  });
}

// A mesh of two ranks, of which this one notes the sizes of what leaves.
struct Noting {
  explicit Noting(std::vector<std::int64_t> sizes) {
    mesh.tokens = std::make_unique<NotingGroup>(calls);
    for (std::int64_t n : sizes) {
      const Variable variable(test::random({n}, 1), true);
      parameters.push_back({.name = text("p", n), .variable = variable, .global_shape = variable.shape()});
    }
  }
  // backward() through one op for each of these parameters, the last first
  void backward(const std::vector<std::size_t>& order) {
    Variable y(Tensor::zeros({1}, DType::f32, Device{}));
    for (std::size_t p : order)
      y = record("use", y.value(), {y, parameters[p].variable},
                 [shape = parameters[p].variable.shape()](const Tensor& dy) -> Grads {
                   return {dy, Tensor::zeros(shape, DType::f32, Device{})};
                 });
    y.backward(Tensor::zeros({1}, DType::f32, Device{}));
  }

  std::unique_ptr<ProcessGroup> self = make_self_group();
  Mesh mesh{{}, *self};
  std::vector<std::int64_t> calls;
  Parameters parameters;
};

using Sizes = std::vector<std::int64_t>;

TEST(GradientBuckets, LeaveInOneOrderHoweverGradientsComplete) {
  for (const std::vector<std::size_t>& order :
       {std::vector<std::size_t>{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 1, 3, 2, 0}}) {
    Noting n({16, 32, 48, 64});
    Shards shards(n.parameters, n.mesh, 80 * 4, Masters::whole,
                  DType::f32);  // the last | the two before it | the first
    GradientBuckets buckets(shards);
    buckets.arm();
    n.backward(order);
    EXPECT_EQ(n.calls, (Sizes{64, 80, 16}));
    buckets.finish();
    EXPECT_EQ(n.calls, (Sizes{64, 80, 16}));
  }
}

TEST(GradientBuckets, LeaveAsSoonAsTheyMay) {
  Noting n({16, 32, 48, 64});
  Shards shards(n.parameters, n.mesh, 80 * 4, Masters::whole, DType::f32);
  GradientBuckets buckets(shards);
  buckets.arm();
  n.backward({1, 2});
  EXPECT_EQ(n.calls, Sizes{});  // the bucket before theirs is not complete
  n.backward({3});
  EXPECT_EQ(n.calls, (Sizes{64, 80}));
  buckets.finish();  // no gradient came for p16
  EXPECT_EQ(n.calls, (Sizes{64, 80, 16}));
  ASSERT_TRUE(n.parameters[0].variable.grad());

  n.backward({0, 1, 2, 3});
  EXPECT_EQ(n.calls, (Sizes{64, 80, 16})) << "not armed";
  buckets.finish();
  EXPECT_EQ(n.calls, (Sizes{64, 80, 16, 64, 80, 16}));
}

TEST(GradientBuckets, AGradientThatComesTooLateIsAnError) {
  Noting n({16, 32});
  Shards shards(n.parameters, n.mesh, 0, Masters::whole, DType::f32);
  GradientBuckets buckets(shards);
  buckets.arm();
  n.backward({0});
  n.backward({0});  // has not left yet: p32 is missing
  n.backward({1});
  try {
    n.backward({1});
    FAIL() << "the sum of p32 has left without this part";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("p32"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace switchyard
