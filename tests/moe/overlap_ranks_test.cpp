#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "autograd/recompute.h"
#include "dist/gradients.h"
#include "grad_check.h"
#include "moe/moe.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::floats, test::random;

constexpr std::int64_t kDim = 8, kTokens = 16;  // of each rank: four routing groups, two in each half

MoeConfig config_of(Overlap overlap, Dispatch dispatch = Dispatch::exact, double capacity_factor = 1) {
  return {.experts = 8,
          .d_ff = 8,
          .activation = Activation::swiglu,
          .dispatch = dispatch,
          .overlap = overlap,
          .router = {.top_k = 2, .capacity_factor = capacity_factor, .group_size = 4}};
}

struct Result {
  Tensor y, dx, kept_PE;
  float loss = 0;
  Parameters parameters;
};

// <y, dy> + loss, so that one walk back reaches both.
Variable total(const Variable& y, const Tensor& dy, const Variable& loss) {
  return record("total", floats({1}, {0}), {y, loss}, [dy](const Tensor& d) -> Grads { return {dy, d}; });
}

// Expert 2 is never chosen and expert 0 mostly, so that some choices are dropped and loads are uneven.
Result run(const MoeConfig& config, Mesh& mesh, DType rows = DType::f32, bool again = false) {
  ParameterMaker make(1, Device{});
  const Moe moe(config, kDim, "moe", {.std = 0.5}, {.std = 0.5}, mesh, make);
  Parameters parameters = make.take();
  float* const router = parameters[0].variable.value().data<float>();
  router[0 * kDim] = 1;
  router[2 * kDim] = -50;
  Tensor tokens = random({kTokens, kDim}, 10 + unsigned(mesh.tokens->rank()));
  for (std::int64_t t = 0; t < kTokens; ++t) tokens.data<float>()[t * kDim] = 1;

  const Variable x(cast(tokens, rows), true);
  Tensor kept_PE;
  const auto body = [&](const Variable& in) -> Recomputed {
    MoeResult result = moe(in, {.share = 1.0f / kTokens});
    kept_PE = result.stats.kept_PE;
    return {result.y_TD, result.loss_1};
  };
  const auto [y, loss] = again ? recompute(x, body) : body(x);
  const Tensor dy = cast(random({kTokens, kDim}, 20 + unsigned(mesh.tokens->rank())), rows);
  total(y, dy, loss).backward(floats({1}, {1}));
  return {y.value(), x.grad(), kept_PE, loss.value().data<float>()[0], parameters};
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()) == 0;
}

Tensor over_parts(const Tensor& kept_PE) {
  Tensor sum = Tensor::zeros({kept_PE.dim(1)}, DType::i32, Device{});
  for (std::int64_t i = 0; i < kept_PE.numel(); ++i)
    sum.data<std::int32_t>()[i % sum.numel()] += kept_PE.data<std::int32_t>()[i];
  return sum;
}

void on_layouts(const std::function<void(Mesh& mesh)>& body) {
  test::on_ranks({1, 2, 4}, [&](ProcessGroup& world) {
    for (const ParallelConfig& parallel :
         {ParallelConfig{}, {.expert = 2}, {.expert = 4}, {.expert_tensor = 2}, {.expert = 2, .expert_tensor = 2}}) {
      if (world.size() % (parallel.expert * parallel.expert_tensor) != 0) continue;
      Mesh mesh(parallel, world);
      SCOPED_TRACE(describe(mesh.layout));
      body(mesh);
    }
  });
}

// Routing, losses and drops are those of all tokens together, to the bit. A row's products are too, in bf16; oneDNN
// orders a row's f32 sums by the number of rows beside it. Gradients of experts are sums of two products.
TEST(Overlap, ChangesNoBitOfRowsAndGradientsByRounding) {
  constexpr double kRounding = 5e-6;  // of f32 sums of up to 128 terms of size 1
  on_layouts([](Mesh& mesh) {
    for (const DType rows : {DType::f32, DType::bf16})
      for (const auto& [dispatch, capacity_factor] :
           {std::pair{Dispatch::exact, 1.0}, {Dispatch::exact, 0.0}, {Dispatch::padded, 1.0}}) {
        const Result whole = run(config_of(Overlap::off, dispatch, capacity_factor), mesh, rows);
        const Result halves = run(config_of(Overlap::on, dispatch, capacity_factor), mesh, rows);
        EXPECT_EQ(halves.kept_PE.shape(), (Shape{2, 8}));
        const Tensor kept = over_parts(whole.kept_PE);
        EXPECT_TRUE(same_bits(over_parts(halves.kept_PE), kept));
        EXPECT_EQ(kept.data<std::int32_t>()[2], 0) << "expert 2 was to stay empty";
        if (capacity_factor > 0) {
          EXPECT_EQ(kept.data<std::int32_t>()[0], 4) << "expert 0 was to drop something";
        }
        EXPECT_EQ(halves.loss, whole.loss);
        const double rounding = rows == DType::bf16 ? 0 : kRounding;
        test::expect_near(cast(halves.y, DType::f32), cast(whole.y, DType::f32), rounding);
        test::expect_near(cast(halves.dx, DType::f32), cast(whole.dx, DType::f32), rounding);
        for (std::size_t p = 0; p < whole.parameters.size(); ++p)
          test::expect_near(halves.parameters[p].variable.grad(), whole.parameters[p].variable.grad(),
                            p == 0 ? rounding : kRounding);
      }
  });
}

TEST(Overlap, RunsAgainInRecomputationWithTheSameBits) {
  on_layouts([](Mesh& mesh) {
    const MoeConfig config = config_of(Overlap::on);
    const Result plain = run(config, mesh), again = run(config, mesh, DType::f32, true);
    EXPECT_TRUE(same_bits(again.y, plain.y));
    EXPECT_TRUE(same_bits(again.dx, plain.dx));
    for (std::size_t p = 0; p < plain.parameters.size(); ++p)
      EXPECT_TRUE(same_bits(again.parameters[p].variable.grad(), plain.parameters[p].variable.grad()));
  });
}

// Lets rows travel only when they are awaited, and notes when that is.
class LateGroup final : public ProcessGroup {
 public:
  explicit LateGroup(std::unique_ptr<ProcessGroup> group) : group_(std::move(group)) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  bool overlaps(Device) const override { return true; }
  void barrier() override { group_->barrier(); }
  [[noreturn]] void abort(int exit_code) override {
    group_->abort(exit_code);
    std::abort();
  }

  std::vector<int> log;  // n: the n-th exchange left; -n: it was awaited

 private:
  void do_all_reduce(Tensor& x, Reduce op) override { group_->all_reduce(x, op); }
  void do_broadcast(Tensor& x, int root) override { group_->broadcast(x, root); }
  void do_all_gather(Tensor& out, const Tensor& in) override { group_->all_gather(out, in); }
  void do_reduce_scatter(Tensor& out, const Tensor& in) override { group_->reduce_scatter(out, in); }
  void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    group_->all_to_all(out, recv, in, send);
  }
  Wait do_start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                           std::span<const int> send) override {
    std::memset(out.bytes(), 0xff, out.size_in_bytes());  // a NaN until then
    log.push_back(++started_);
    return [this, n = started_, out, in, recv = std::vector(recv.begin(), recv.end()),
            send = std::vector(send.begin(), send.end())]() mutable {
      group_->all_to_all(out, recv, in, send);
      log.push_back(-n);
    };
  }
  std::unique_ptr<ProcessGroup> do_split(int colour) override { return group_->split(colour); }

  std::unique_ptr<ProcessGroup> group_;
  int started_ = 0;
};

// Forward, the exchanges are 1 and 2, the halves on their way out, and 3 and 4, home. 3 leaves, and so experts have
// computed on the first half, while 2 is under way, and 3 is while they compute on the second. Backward the same:
// 5 and 6 bring the gradients of the second and the first half out, 7 and 8 home.
TEST(Overlap, ExpertsComputeOnOneHalfWhileTheOtherTravels) {
  const std::vector<int> forward{1, 2, -1, 3, -2, 4, -3, -4}, backward{5, 6, -5, 7, -6, 8, -8, -7};
  test::on_ranks({2, 4}, [&](ProcessGroup& world) {
    for (const Dispatch dispatch : {Dispatch::exact, Dispatch::padded}) {
      Mesh mesh({.expert = 2}, world);
      const Result at_once = run(config_of(Overlap::on, dispatch), mesh);
      auto late = std::make_unique<LateGroup>(std::move(mesh.experts));
      std::vector<int>& log = late->log;
      mesh.experts = std::move(late);
      const Result late_run = run(config_of(Overlap::automatic, dispatch), mesh);
      std::vector<int> expected = forward;
      expected.insert(expected.end(), backward.begin(), backward.end());
      EXPECT_EQ(log, expected);
      EXPECT_TRUE(same_bits(late_run.y, at_once.y));
      EXPECT_TRUE(same_bits(late_run.dx, at_once.dx));
      for (std::size_t p = 0; p < at_once.parameters.size(); ++p)
        EXPECT_TRUE(same_bits(late_run.parameters[p].variable.grad(), at_once.parameters[p].variable.grad()));

      // Recomputed: forward without recording, then both.
      log.clear();
      run(config_of(Overlap::automatic, dispatch), mesh, DType::f32, true);
      expected = {17, 18, -17, 19, -18, 20, -19, -20};
      for (const int n : {21, 22, -21, 23, -22, 24, -23, -24, 25, 26, -25, 27, -26, 28, -28, -27})
        expected.push_back(n);
      for (int& n : expected) n += n > 0 ? -8 : 8;
      EXPECT_EQ(log, expected);
    }
  });
}

// By configuration and shapes alone, so that all ranks decide alike.
TEST(Overlap, HappensWhereItIsWantedAndRoutingGroupsAreWhole) {
  const auto self = make_self_group();
  const auto parts = [&](Overlap overlap, std::int64_t tokens, Capacity capacity, Mesh& mesh) {
    ParameterMaker make(1, Device{});
    const Moe moe(config_of(overlap), kDim, "moe", {.std = 0.5}, {.std = 0.5}, mesh, make);
    return moe(Variable(random({tokens, kDim}, 1)), {.capacity = capacity, .share = 1}).stats.kept_PE.dim(0);
  };
  Mesh mesh({}, *self);
  EXPECT_EQ(parts(Overlap::on, 16, Capacity::enforced, mesh), 2);
  EXPECT_EQ(parts(Overlap::on, 12, Capacity::enforced, mesh), 1) << "three groups";
  EXPECT_EQ(parts(Overlap::on, 4, Capacity::enforced, mesh), 1) << "one group";
  EXPECT_EQ(parts(Overlap::on, 16, Capacity::unlimited, mesh), 1) << "no groups";
  EXPECT_EQ(parts(Overlap::off, 16, Capacity::enforced, mesh), 1);
  EXPECT_EQ(parts(Overlap::automatic, 16, Capacity::enforced, mesh), 1) << "nothing travels";
  mesh.experts = std::make_unique<LateGroup>(std::move(mesh.experts));
  EXPECT_EQ(parts(Overlap::automatic, 16, Capacity::enforced, mesh), 1) << "nobody to travel to";

  test::on_ranks({2}, [&](ProcessGroup& world) {
    Mesh host({.expert = 2}, world);
    EXPECT_EQ(parts(Overlap::automatic, 16, Capacity::enforced, host), 1) << "host memory travels at once";
    host.experts = std::make_unique<LateGroup>(std::move(host.experts));
    EXPECT_EQ(parts(Overlap::automatic, 16, Capacity::enforced, host), 2);
    EXPECT_EQ(parts(Overlap::off, 16, Capacity::enforced, host), 1);
    Mesh cut({.tensor = 2, .expert = 2}, world);
    EXPECT_EQ(parts(Overlap::on, 2, Capacity::enforced, cut), 1) << "half of a group";
    EXPECT_EQ(parts(Overlap::on, 8, Capacity::enforced, cut), 2);
  });
}

}  // namespace
}  // namespace switchyard
