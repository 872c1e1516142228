#include "train/spelling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace switchyard {
namespace {

// The definition, by what becomes of the last letters.
int distance_by_recursion(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return static_cast<int>(a.size() + b.size());
  const std::string a1 = a.substr(0, a.size() - 1), b1 = b.substr(0, b.size() - 1);
  int best = std::min({distance_by_recursion(a1, b) + 1, distance_by_recursion(a, b1) + 1,
                       distance_by_recursion(a1, b1) + (a.back() != b.back())});
  if (a.size() > 1 && b.size() > 1 && a.back() == b1.back() && b.back() == a1.back())
    best = std::min(best, distance_by_recursion(a1.substr(0, a1.size() - 1), b1.substr(0, b1.size() - 1)) + 1);
  return best;
}

TEST(Spelling, EditDistanceIsItsDefinition) {
  std::mt19937 random(3);
  const auto word = [&] {
    std::string letters(random() % 6, 'a');
    for (char& c : letters) c = static_cast<char>('a' + random() % 3);
    return letters;
  };
  for (int i = 0; i < 300; ++i) {
    const std::string a = word(), b = word();
    EXPECT_EQ(edit_distance(a, b), distance_by_recursion(a, b)) << a << " to " << b;
  }
}

TEST(Spelling, NearestIsTheClosestWithinAThirdOrAPart) {
  const std::vector<std::string> keys{"experts", "top_k", "every", "group_size", "lr"};
  EXPECT_EQ(nearest("expert", keys), "experts");
  EXPECT_EQ(nearest("Top-K", keys), "top_k");
  EXPECT_EQ(nearest("evrey", keys), "every");
  EXPECT_EQ(nearest("num_experts", keys), "experts");
  EXPECT_EQ(nearest("rl", keys), "lr");
  EXPECT_EQ(nearest("warmup", keys), std::nullopt);
  EXPECT_EQ(nearest("xy", keys), std::nullopt);
  EXPECT_EQ(nearest(std::string(1 << 20, 'x'), keys), std::nullopt);
}

}  // namespace
}  // namespace switchyard
