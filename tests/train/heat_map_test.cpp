#include "train/heat_map.h"

#include <gtest/gtest.h>

#include <string>

namespace switchyard {
namespace {

// The x where a label ends whose end was placed.
double end_of(const std::string& svg, const std::string& name) {
  const std::size_t label = svg.find('>' + name);
  if (label == std::string::npos) return -1;
  const std::string begin = "<text x=\"";
  const std::size_t tag = svg.rfind(begin, label);
  const bool is_end = svg.substr(tag, label - tag).find("text-anchor=\"end\"") != std::string::npos;
  return is_end ? std::stod(svg.substr(tag + begin.size())) : -1;
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
