#include <cmath>
#include <limits>

#include "dist/gradients.h"
#include "grad_check.h"
#include "optim/clip.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::at, test::floats, test::on_ranks, test::random;

Parameter with_gradient(Tensor gradient, Replicas replicas = Replicas::none) {
  Variable v(zeros_like(gradient), true);
  v.accumulate(gradient);
  return {.name = "p",
          .variable = v,
          .global_shape = gradient.shape(),
          .boxes = {{{}, gradient.shape()}},
          .replicas = replicas};
}

// This rank's rows where the group shares them out.
Tensor part(const Tensor& whole, const ProcessGroup& group) {
  const std::int64_t rows = whole.dim(0) / group.size();
  return whole.rows(rows * group.rank(), rows * (group.rank() + 1));
}

// A model with 12 experts: this rank's part of the experts and of a matrix. Of the ranks that hold the same, the last
// one brings a gradient.
Parameters model(Mesh& mesh) {
  Parameters parameters{with_gradient(random({7, 5}, 1), Replicas::tokens),
                        with_gradient(part(random({12, 3, 4}, 2, 2), *mesh.experts), Replicas::expert_data),
                        with_gradient(part(random({12}, 3), *mesh.tensor), Replicas::data)};
  const ProcessGroup* holders[] = {mesh.tokens.get(), mesh.expert_data.get(), mesh.data.get()};
  for (std::size_t p = 0; p < 3; ++p)
    if (holders[p]->rank() + 1 < holders[p]->size()) parameters[p].variable.zero_grad();
  return parameters;
}

double expected_norm() {
  double squares = 0;
  for (const Tensor& g : {random({7, 5}, 1), random({12, 3, 4}, 2, 2), random({12}, 3)}) squares += test::dot(g, g);
  return std::sqrt(squares);
}

TEST(GradientNorm, CountsEachParameterOnceOnEveryLayout) {
  on_ranks([](ProcessGroup& world) {
    const auto divides = [&](int n) { return world.size() % n == 0 && 12 % n == 0; };
    for (int tensor = 1; tensor <= world.size(); ++tensor)
      for (int expert = 1; expert <= world.size(); ++expert) {
        if (!divides(tensor) || !divides(expert)) continue;
        Mesh mesh({.tensor = tensor, .expert = expert}, world);
        std::vector<double> norms;
        for (const Masters masters : {Masters::whole, Masters::own}) {
          Parameters parameters = model(mesh);
          Shards shards(parameters, mesh, 1 << 20, masters, DType::f32);
          GradientBuckets(shards).finish();
          const GradientNorm result = gradient_norm(shards.own(), Device{}, mesh, 0.5);
          norms.push_back(result.norm());
          // Squares are summed in double and rounded to f32 once for each rank, 6e-8 each; the root halves that.
          EXPECT_NEAR(result.norm(), expected_norm(), 3e-7 * expected_norm()) << describe(mesh.layout);
          EXPECT_NEAR(at(result.grad_scale_1, 0), 0.5 / (expected_norm() + 1e-6), 1e-7);
        }
        EXPECT_EQ(norms[0], norms[1]) << describe(mesh.layout);
      }
  });
}

TEST(GradientNorm, ScalesOnlyWhatIsTooLong) {
  const auto world = make_self_group();
  Mesh mesh({.data = 1, .expert = 1}, *world);
  const Parameters parameters{with_gradient(floats({2}, {3, 4}))};
  EXPECT_NEAR(gradient_norm(parameters, Device{}, mesh, 1).norm(), 5, 1e-6);
  EXPECT_NEAR(at(gradient_norm(parameters, Device{}, mesh, 1).grad_scale_1, 0), 0.2, 1e-6);
  EXPECT_EQ(at(gradient_norm(parameters, Device{}, mesh, 6).grad_scale_1, 0), 1);
  EXPECT_EQ(at(gradient_norm(parameters, Device{}, mesh, 0).grad_scale_1, 0), 1);
}

// A rank that owns nothing still takes part.
TEST(GradientNorm, AMissingGradientCountsAsZeros) {
  on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    Mesh mesh({.data = world.size(), .expert = world.size()}, world);
    Parameters parameters{with_gradient(floats({2}, {3, 0}))};
    parameters.push_back(with_gradient(floats({1}, {7})));
    parameters.back().variable.zero_grad();
    if (world.rank() > 0) parameters.clear();
    EXPECT_NEAR(gradient_norm(parameters, Device{}, mesh, 1).norm(), 3, 1e-6);
  });
}

TEST(GradientNorm, OneRanksNaNOrInfinityIsSeenByAll) {
  on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Mesh mesh({.data = world.size(), .expert = world.size()}, world);
      const bool mine = world.rank() == world.size() - 1;
      const Parameters parameters{with_gradient(floats({2}, {mine ? bad : 1, 1}))};
      EXPECT_FALSE(std::isfinite(gradient_norm(parameters, Device{}, mesh, 1).norm()));
    }
  });
}

}  // namespace
}  // namespace switchyard
