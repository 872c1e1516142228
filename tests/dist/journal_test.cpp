#include "dist/journal.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

const Call kBarrier{Collective::barrier};

Call sum_of(std::int64_t n) { return Call::all_reduce(Tensor::zeros({n}, DType::f32, Device{}), Reduce::sum); }

// A rank in two groups: the world of three and the part of its first two.
struct Rank {
  Journal journal;
  const int world = journal.join({"world", {0, 1, 2}});
  const int part = journal.join({"world/1:0", {0, 1}});

  std::optional<Account> account(const std::string& path = "world") const {
    return Account::read(journal.account(path).write());
  }
};

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

TEST(Journal, AccountsForTheGroupThatIsAskedAbout) {
  Rank rank;
  EXPECT_EQ(rank.account()->reached, 0);
  EXPECT_EQ(rank.account()->story, "has come to no collective");
  rank.journal.enter(rank.world, kBarrier);
  rank.journal.leave(rank.world, 1);
  rank.journal.enter(rank.part, sum_of(3));
  EXPECT_EQ(rank.account()->reached, 1);
  EXPECT_EQ(rank.account()->calls, (std::map<std::int64_t, std::string>{{1, "barrier"}}));
  EXPECT_EQ(rank.account("world/1:0")->calls, (std::map<std::int64_t, std::string>{{1, "all_reduce(sum) of f32 (3)"}}));
  EXPECT_EQ(rank.account()->story,
            "waits in all_reduce(sum) of f32 (3) (collective 1 of ranks 0 and 1); before: barrier (collective 1 of "
            "ranks 0, 1 and 2)");
  rank.journal.leave(rank.part, 1);
  EXPECT_EQ(rank.account()->story.substr(0, 18), "is past all_reduce");
}

// Of two collectives that are under way at once either may end first.
TEST(Journal, EndsTheCollectiveThatIsNamed) {
  Rank rank;
  const std::int64_t first = rank.journal.enter(rank.world, kBarrier),
                     second = rank.journal.enter(rank.world, sum_of(3));
  rank.journal.leave(rank.world, first);
  EXPECT_EQ(rank.account()->story.substr(0, 19), "waits in all_reduce");
  rank.journal.leave(rank.world, second);
  EXPECT_EQ(rank.account()->story.substr(0, 18), "is past all_reduce");
}

TEST(Journal, CountsWhatItForgets) {
  Rank rank;
  for (int i = 0; i < 5; ++i) rank.journal.enter(rank.world, kBarrier);
  for (int i = 0; i < 100; ++i) rank.journal.enter(rank.part, kBarrier);
  EXPECT_EQ(rank.account()->reached, 5);
  EXPECT_TRUE(rank.account()->calls.empty());
  EXPECT_EQ(rank.account("world/1:0")->reached, 100);
  EXPECT_EQ(rank.account("world/1:0")->calls.rbegin()->first, 100);
}

TEST(Diagnose, FindsTheFirstCallThatDiffersAndThoseInTheMinority) {
  Rank ranks[3];
  for (int r = 0; r < 3; ++r) {
    Journal& journal = ranks[r].journal;
    journal.enter(ranks[r].world, kBarrier);
    if (r != 1) journal.enter(ranks[r].world, sum_of(3));  // rank 1 has skipped one, and all after it differ
    journal.enter(ranks[r].world, sum_of(4));
    journal.enter(ranks[r].world, sum_of(5));
  }
  const std::string what =
      diagnose({"world", {0, 1, 2}}, 3, {ranks[0].account(), ranks[1].account(), ranks[2].account()});
  EXPECT_EQ(first_line(what),
            "rank 1 calls all_reduce(sum) of f32 (4) where ranks 0 and 2 call all_reduce(sum) of f32 (3)");
  EXPECT_NE(what.find("\n  rank 1 waits in all_reduce(sum) of f32 (5) (collective 3 of"), std::string::npos);
}

TEST(Diagnose, NamesTheSilentBeforeThoseWhoWaitForThem) {
  Rank ranks[3];
  for (Rank& rank : ranks) rank.journal.enter(rank.world, kBarrier);
  ranks[2].journal.enter(ranks[2].world, sum_of(3));
  ranks[0].journal.enter(ranks[0].part, sum_of(3));
  EXPECT_EQ(first_line(diagnose({"world", {0, 1, 2}}, 2, {ranks[0].account(), {}, ranks[2].account()})),
            "rank 1 does not answer: it is stopped, dead, or busy outside of collectives");
  EXPECT_EQ(first_line(diagnose({"world", {0, 1, 2}}, 2, {{}, {}, ranks[2].account()})),
            "ranks 0 and 1 do not answer: they are stopped, dead, or busy outside of collectives");
}

TEST(Diagnose, NamesThoseElsewhere) {
  Rank ranks[3];
  for (Rank& rank : ranks) rank.journal.enter(rank.world, kBarrier);
  ranks[2].journal.enter(ranks[2].world, sum_of(3));
  const auto what = [&] {
    return first_line(diagnose({"world", {0, 1, 2}}, 2, {ranks[0].account(), ranks[1].account(), ranks[2].account()}));
  };
  EXPECT_EQ(what(), "rank 2 waits where ranks 0 and 1 do not come");
  ranks[0].journal.enter(ranks[0].world, sum_of(3));
  EXPECT_EQ(what(), "rank 1 has not come to collective 2 of ranks 0, 1 and 2");
  ranks[1].journal.enter(ranks[1].world, sum_of(3));
  EXPECT_EQ(what(), "all ranks answer and call the same; the way between them may be broken");
}

}  // namespace
}  // namespace switchyard
