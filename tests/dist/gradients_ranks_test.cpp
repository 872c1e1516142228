#include "dist/gradients.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

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

// Whatever travels together, each parameter gets the bits of its own sum: dense ones over all ranks, experts over the
// ranks that hold the same.
TEST(SumGradients, BucketsDoNotChangeABit) {
  const std::vector<Shape> shapes{{3, 5}, {1}, {40, 30}, {0, 4}, {7}, {64}, {2, 3, 4}, {11}, {9, 9}};
  test::on_ranks([&](ProcessGroup& world) {
    for (int expert : {1, 2}) {
      if (world.size() % expert != 0) continue;
      Mesh mesh({.expert = expert}, world);
      for (std::int64_t bucket_bytes : {0, 100, 4096, 1 << 20}) {
        Parameters parameters;
        for (std::size_t p = 0; p < shapes.size(); ++p) {
          Variable variable(test::random(shapes[p], 1), true);
          if (const Tensor grad = local_gradient(p, shapes[p], world.rank())) variable.accumulate(grad);
          parameters.push_back({.name = text("p", p),
                                .variable = variable,
                                .global_shape = shapes[p],
                                .replicas = p % 4 == 1 ? Replicas::expert_data : Replicas::data});
        }
        sum_gradients(parameters, mesh, bucket_bytes);
        for (std::size_t p = 0; p < shapes.size(); ++p) {
          const bool shared_by_all = parameters[p].replicas == Replicas::data;
          const auto ranks = shared_by_all ? mesh.layout.dense.peers(world.rank(), {Axis::dp})
                                           : mesh.layout.expert.peers(world.rank(), {Axis::edp});
          const Tensor& grad = parameters[p].variable.grad();
          const Tensor expected = sum_by_definition(p, shapes[p], ranks);
          ASSERT_TRUE(grad);
          ASSERT_EQ(grad.shape(), shapes[p]);
          EXPECT_EQ(std::memcmp(grad.bytes(), expected.bytes(), grad.size_in_bytes()), 0)
              << parameters[p].name << ", buckets of " << bucket_bytes << ", ep = " << expert;
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
  void do_all_to_all(Tensor&, std::span<const int>, const Tensor&, std::span<const int>) override {}
  std::unique_ptr<ProcessGroup> do_split(int) override { return make_self_group(); }

  std::vector<std::int64_t>& calls_;
};

TEST(SumGradients, BucketsFillUpButNotOver) {
  const auto world = make_self_group();
  Mesh mesh({}, *world);
  std::vector<std::int64_t> calls;
  mesh.data = std::make_unique<NotingGroup>(calls);
  Parameters parameters;
  for (std::int64_t n : {4, 6, 1, 30, 2, 2, 2, 10}) {
    const Variable variable(test::random({n}, 1), true);
    parameters.push_back({.name = text("p", n), .variable = variable, .global_shape = variable.shape()});
  }
  const auto calls_with = [&](std::int64_t bucket_bytes) {
    calls.clear();
    sum_gradients(parameters, mesh, bucket_bytes);
    return calls;
  };
  EXPECT_EQ(calls_with(40), (std::vector<std::int64_t>{10, 1, 30, 6, 10}));
  EXPECT_EQ(calls_with(0), (std::vector<std::int64_t>{4, 6, 1, 30, 2, 2, 2, 10}));
  EXPECT_EQ(calls_with(1 << 20), (std::vector<std::int64_t>{57}));
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

}  // namespace
}  // namespace switchyard
