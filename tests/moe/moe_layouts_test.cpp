#include "moe/moe.h"

#include <gtest/gtest.h>

#include "moe/cases.h"
#include "slices.h"

namespace switchyard {
namespace {

using namespace test;

// The same products, summed over other groupings of the tokens: f32 rounding of sums of up to 64 terms.
constexpr double kRounding = 1e-5;

void expect_parts(const std::vector<Result>& parts, const Result& whole) {
  double loss = 0;
  std::int64_t choices = 0;
  const std::int64_t mine = parts[0].y.dim(0);
  for (std::int64_t r = 0; r < std::ssize(parts); ++r) {
    const Result& part = parts[std::size_t(r)];
    SCOPED_TRACE(text("rank ", r));
    expect_near(part.y, whole.y.rows(r * mine, (r + 1) * mine), kRounding);
    expect_near(part.dx, whole.dx.rows(r * mine, (r + 1) * mine), kRounding);
    loss += part.loss;
    choices += part.choices;
    for (std::size_t i = 0; i < part.parameters.size(); ++i) {
      const Parameter& p = part.parameters[i];
      expect_near(p.variable.grad(), slice_of(whole.parameters[i].variable.grad(), p), kRounding);
    }
  }
  EXPECT_NEAR(loss, whole.loss, kRounding * (1 + whole.loss));
  EXPECT_EQ(choices, whole.choices);
}

// Experts spread over ranks compute what one rank with all of them computes, on all the ranks' tokens.
void expect_layout(const MoeConfig& config, int ranks, const ParallelConfig& parallel, std::int64_t all_tokens) {
  Result whole;
  run_ranks(1, [&](ProcessGroup& self) { whole = run(config, self, {}, all_tokens); });
  std::vector<Result> parts(static_cast<std::size_t>(ranks));
  run_ranks(ranks,
            [&](ProcessGroup& world) { parts[std::size_t(world.rank())] = run(config, world, parallel, all_tokens); });
  expect_parts(parts, whole);
}

// Ranks, those that experts are spread over, and those that each is cut over.
class MoeLayouts : public testing::TestWithParam<std::tuple<int, int, int>> {};
INSTANTIATE_TEST_SUITE_P(Ranks, MoeLayouts,
                         testing::Values(std::tuple{2, 1, 1}, std::tuple{2, 2, 1}, std::tuple{4, 4, 1},
                                         std::tuple{4, 2, 1}, std::tuple{2, 1, 2}, std::tuple{4, 2, 2},
                                         std::tuple{4, 1, 2}));

TEST_P(MoeLayouts, EqualOneRank) {
  const auto [ranks, expert_ranks, expert_tensor_ranks] = GetParam();
  for (const auto& [name, config] : kRouters) {
    SCOPED_TRACE(name);
    expect_layout(config, ranks, {.expert = expert_ranks, .expert_tensor = expert_tensor_ranks},
                  kTokensPerRank * ranks);
  }
}

class SpreadRouters : public EachRouter {};
INSTANTIATE_TEST_SUITE_P(All, SpreadRouters, each_router(), name_of_router);

// Groups of 8 tokens over ranks of 6, 12 and 2: whom an expert takes, and the losses, are of the whole group.
TEST_P(SpreadRouters, EqualOneRankWhereGroupsLieOverSeveral) {
  struct Layout {
    int ranks;
    ParallelConfig parallel;
    std::int64_t tokens;
  };
  for (const Dispatch dispatch : {Dispatch::exact, Dispatch::padded})
    for (const Layout& c :
         {Layout{4, {.tensor = 4, .expert = 2}, 24}, Layout{2, {.tensor = 2, .expert = 2}, 24},
          Layout{4, {.tensor = 4, .expert_tensor = 2}, 8}, Layout{4, {.tensor = 2, .expert = 4}, 16}}) {
      SCOPED_TRACE(text(c.ranks, " ranks, ", c.tokens, " tokens"));
      MoeConfig config = this->config();
      config.dispatch = dispatch;
      expect_layout(config, c.ranks, c.parallel, c.tokens);
    }
}

// The last samples of an evaluation need not divide over the ranks: some get fewer, or none.
TEST(Evaluation, OfUnevenRanksEqualsOneRank) {
  const auto evaluate = [](const MoeConfig& config, Mesh& mesh, std::int64_t first, std::int64_t count) {
    NoGrad guard;
    RouterPass pass = pass_of(count, first, 64);
    pass.capacity = Capacity::unlimited;
    return Layer(config, mesh).moe(Variable(tokens(count, first)), pass).y_TD.value();
  };
  for (const auto& [name, config] : kRouters)
    for (const auto& [first_rank, all] : {std::pair<std::int64_t, std::int64_t>{32, 40}, {16, 16}}) {
      SCOPED_TRACE(text(name, ", ", first_rank, " of ", all, " tokens"));
      const auto self = make_self_group();
      Mesh alone({}, *self);
      // Without groups each rank's tokens stand alone, which changes nothing for tokens that choose.
      const Tensor whole = evaluate(config, alone, 0, all);
      run_ranks(2, [&, first_rank = first_rank, all = all](ProcessGroup& world) {
        Mesh mesh({.expert = 2}, world);
        const std::int64_t first = world.rank() == 0 ? 0 : first_rank, end = world.rank() == 0 ? first_rank : all;
        expect_near(evaluate(config, mesh, first, end - first), whole.rows(first, end), kRounding);
      });
    }
}

TEST(MicroBatchBalance, CountsTheTokensOfEveryRank) {
  MoeConfig config = router_named("top2");
  config.router.balance_scope = BalanceScope::micro_batch;
  config.router.z_loss = 0;
  expect_layout(config, 2, {.expert = 2}, 16);
  Result whole, by_group;
  run_ranks(1, [&](ProcessGroup& self) { whole = run(config, self, {}, 16); });
  config.router.balance_scope = BalanceScope::group;
  run_ranks(1, [&](ProcessGroup& self) { by_group = run(config, self, {}, 16); });
  EXPECT_GT(std::abs(by_group.loss - whole.loss), 1e-5) << "the two scopes should differ on these tokens";
}

}  // namespace
}  // namespace switchyard
