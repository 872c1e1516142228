#pragma once

#include <string>
#include <vector>

namespace switchyard {

// A picture of numbers as an SVG element: cells in rows, each row and column with its name.
struct HeatMap {
  struct Row {
    std::string name;
    std::vector<double> values;  // 0 is white, 1 halfway, 2 and more the darkest; NaN is no cell
  };
  std::string title, unit;  // of the values
  std::string rows_are, columns_are;
  std::vector<std::string> columns;
  std::vector<Row> rows;
};

// Lengths are CSS pixels; nothing from elsewhere, in colours that stay in order when printed grey.
std::string to_svg(const HeatMap& map);

// Of text, for HTML and SVG.
std::string escaped(const std::string& text);

}  // namespace switchyard
