#include "dist/consistency.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ranks.h"

namespace switchyard {
namespace {

// What require_agreement says on this rank, after checking that every rank says the same.
std::string disagreement(const Facts& facts, ProcessGroup& world) {
  std::string what = "none";
  try {
    require_agreement(facts, world);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::communication);
    what = error.what();
  }
  for (const std::string& theirs : all_gather_text(world, what)) EXPECT_EQ(theirs, what);
  return what;
}

TEST(RequireAgreement, AcceptsEqualFactsInAnyOrder) {
  test::on_ranks([](ProcessGroup& world) {
    Facts facts{{"config", "a: 1\nb: 2\n"}, {"version", "1.0 12"}, {"", ""}};
    if (world.rank() == world.size() - 1) std::swap(facts[0], facts[2]);
    EXPECT_EQ(disagreement(facts, world), "none");
    EXPECT_EQ(disagreement({}, world), "none");
  });
}

TEST(RequireAgreement, NamesTheFactTheRanksAndBothValues) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    const Facts facts{{"code version", world.rank() == 2 ? "abd" : "abc"}, {"layers", "4"}};
    EXPECT_EQ(disagreement(facts, world),
              "the ranks do not agree:\n  code version: rank 2 has \"abd\", ranks 0, 1, 3 have \"abc\"");
  });
  test::on_ranks({2}, [](ProcessGroup& world) {
    EXPECT_EQ(disagreement({{"seed", world.rank() == 0 ? "1" : "2"}}, world),
              "the ranks do not agree:\n  seed: rank 1 has \"2\", rank 0 has \"1\"");
  });
}

TEST(RequireAgreement, EveryDifferingRankIsFoundFromEverywhere) {
  test::on_ranks({3, 4, 8}, [](ProcessGroup& world) {
    for (int odd_one = 0; odd_one < world.size(); ++odd_one) {
      const std::string what = disagreement({{"a", "1"}, {"b", world.rank() == odd_one ? "x" : "y"}}, world);
      EXPECT_NE(what.find(text("b: rank ", odd_one, " has \"x\"")), std::string::npos) << what;
      EXPECT_EQ(what.find("a: "), std::string::npos) << what;
    }
  });
}

TEST(RequireAgreement, FactsThatSomeRanksDoNotHave) {
  test::on_ranks({3}, [](ProcessGroup& world) {
    Facts facts{{"a", "1"}};
    if (world.rank() == 1) facts = {};
    if (world.rank() == 2) facts = {{"a", "1"}, {"b", ""}};
    EXPECT_EQ(disagreement(facts, world),
              "the ranks do not agree:\n"
              "  a: rank 1 has nothing, ranks 0, 2 have \"1\"\n"
              "  b: rank 2 has \"\", ranks 0, 1 have nothing");
  });
}

// Of two long values, what is shown is where they differ, on one line.
TEST(RequireAgreement, ShowsLongValuesWhereTheyDiffer) {
  test::on_ranks({3}, [](ProcessGroup& world) {
    const std::string before(1000, 'b'), after(1000, 'c');
    const auto value = before + (world.rank() == 1 ? "\nlr: 0.1\n" : "\nlr: 0.2\n") + after;
    const std::string what = disagreement({{"configuration", value}}, world);
    EXPECT_NE(what.find(" lr: 0.1 c"), std::string::npos) << what;
    EXPECT_NE(what.find(" lr: 0.2 c"), std::string::npos) << what;
    EXPECT_LT(what.size(), 300u);
    EXPECT_EQ(std::ranges::count(what, '\n'), 1);
  });
}

}  // namespace
}  // namespace switchyard
