#include "train/heat_map.h"

#include <gtest/gtest.h>

#include <regex>

namespace switchyard {
namespace {

// The x where a label ends whose end was placed.
double end_of(const std::string& svg, const std::string& name) {
  std::smatch found;
  const std::regex pattern("<text x=\"([0-9.]+)\"[^>]*text-anchor=\"end\"[^>]*>" + name);
  return std::regex_search(svg, found, pattern) ? std::stod(found[1]) : -1;
}

TEST(HeatMap, LongNamesOfRowsHaveRoom) {
  const std::string longer(80, 'n');
  const HeatMap map{.title = "t",
                    .unit = "equal shares",
                    .rows_are = "domain",
                    .columns_are = "expert",
                    .columns = {"0", "1"},
                    .rows = {{"short", {1, 1}}, {longer, {0, 2}}}};
  EXPECT_GT(end_of(to_svg(map), longer), 80 * 5.5);  // letters of 11 px, about half as wide
  EXPECT_GT(end_of(to_svg(map), "domain"), 80 * 5.5);
}

}  // namespace
}  // namespace switchyard
