#include "train/heat_map.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace switchyard {
namespace {

constexpr double kCell = 22, kWidth = 760, kKey = 246;
constexpr double kCharacter = 6.4;  // a sans-serif letter of 12 px is about so wide
constexpr const char *kInk = "#1b1f24", *kMuted = "#57606a";

// White at nothing, then one blue that darkens evenly: order survives grey printing and any colour vision.
std::string colour(double value) {
  constexpr std::array<std::array<int, 3>, 5> kScale{
      {{255, 255, 255}, {198, 219, 239}, {107, 174, 214}, {33, 113, 181}, {8, 48, 107}}};
  const double place = 2 * std::clamp(value, 0.0, 2.0);
  const auto low = std::min(static_cast<std::size_t>(place), kScale.size() - 2);
  std::string hex = "#";
  for (std::size_t i = 0; i < 3; ++i) {
    const double mixed = kScale[low][i] + (place - double(low)) * (kScale[low + 1][i] - kScale[low][i]);
    hex += fmt::format("{:02x}", static_cast<int>(std::lround(mixed)));
  }
  return hex;
}

std::string label(double x, double y, const char* anchor, double size, const char* ink, const std::string& words,
                  const char* weight = "normal") {
  return fmt::format(
      R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}" font-size="{}" fill="{}" font-weight="{}">{}</text>)", x, y,
      anchor, size, ink, weight, escaped(words));
}

std::string cell(double x, double y, double width, double value) {
  if (std::isnan(value)) return "";
  std::string svg = fmt::format(
      R"(<rect x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{}" fill="{}" stroke="#fff" stroke-width="0.6"/>)", x, y,
      width, kCell, colour(value));
  if (width >= 28)
    svg += label(x + width / 2, y + kCell / 2 + 4, "middle", 10, value < 1.2 ? kInk : "#ffffff",
                 fmt::format("{:.2f}", value));
  return svg;
}

// What the colours mean.
std::string key(double x, double y, const std::string& unit) {
  std::string svg;
  for (int i = 0; i < 41; ++i)
    svg +=
        fmt::format(R"(<rect x="{:.1f}" y="{}" width="6.3" height="10" fill="{}"/>)", x + 6 * i, y, colour(i / 20.0));
  svg += fmt::format(R"(<rect x="{:.1f}" y="{}" width="{}" height="10" fill="none" stroke="{}" stroke-width="0.6"/>)",
                     x, y, kKey, kMuted);
  for (int mark = 0; mark <= 2; ++mark)
    svg += label(x + 120 * mark + 3, y + 24, "middle", 11, kMuted, mark < 2 ? std::to_string(mark) : "2 and more");
  return svg + label(x + 300, y + 10, "start", 11, kMuted, unit);
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '&')
      safe += "&amp;";
    else if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else if (c == '"')
      safe += "&quot;";
    else
      safe += c;
  }
  return safe;
}

std::string to_svg(const HeatMap& map) {
  std::size_t longest = map.rows_are.size();
  for (const HeatMap::Row& row : map.rows) longest = std::max(longest, row.name.size());
  const double left = 24 + kCharacter * static_cast<double>(longest), top = 58;  // of the cells
  const double width = std::max(kWidth, left + 320 + kCharacter * static_cast<double>(map.unit.size()));
  const double wide = std::min(44.0, (width - left - 12) / static_cast<double>(map.columns.size()));  // a cell is
  std::string body = label(8, 18, "start", 13.5, kInk, map.title, "600");
  body += label(left - 8, top - 8, "end", 11, kMuted, map.rows_are);
  body += label(left, 38, "start", 11, kMuted, map.columns_are);
  const std::size_t every = wide >= 18 ? 1 : 4;  // names of columns that have room
  for (std::size_t c = 0; c < map.columns.size(); c += every)
    body += label(left + wide * (double(c) + 0.5), top - 8, "middle", 10, kMuted, map.columns[c]);
  double y = top;
  for (const auto& [name, values] : map.rows) {
    body += label(left - 8, y + kCell / 2 + 4, "end", 11, kInk, name);
    for (std::size_t c = 0; c < values.size(); ++c) body += cell(left + wide * double(c), y, wide, values[c]);
    y += kCell;
  }
  body += key(left, y + 12, map.unit);
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}" style="max-width:{:.0f}px">{}</svg>)",
      width, y + 46, escaped(map.title), width, body);
}

}  // namespace switchyard
