#include "train/heat_map.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace switchyard {
namespace {

constexpr double kCell = 22, kLeft = 150, kWidth = 760, kKey = 246;
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
std::string key(double y, const std::string& unit) {
  std::string svg;
  for (int i = 0; i < 41; ++i)
    svg +=
        fmt::format(R"(<rect x="{}" y="{}" width="6.3" height="10" fill="{}"/>)", kLeft + 6 * i, y, colour(i / 20.0));
  svg += fmt::format(R"(<rect x="{}" y="{}" width="{}" height="10" fill="none" stroke="{}" stroke-width="0.6"/>)",
                     kLeft, y, kKey, kMuted);
  for (int mark = 0; mark <= 2; ++mark)
    svg += label(kLeft + 120 * mark + 3, y + 24, "middle", 11, kMuted, mark < 2 ? std::to_string(mark) : "2 and more");
  return svg + label(kLeft + 300, y + 10, "start", 11, kMuted, unit);
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
  const auto columns = static_cast<double>(map.columns.size());
  const double width = std::min(44.0, (kWidth - kLeft - 12) / columns), top = 58;
  std::string body = label(8, 18, "start", 13.5, kInk, map.title, "600");
  body += label(kLeft - 8, top - 8, "end", 11, kMuted, map.rows_are);
  body += label(kLeft, 38, "start", 11, kMuted, map.columns_are);
  const std::size_t every = width >= 18 ? 1 : 4;  // names of columns that have room
  for (std::size_t c = 0; c < map.columns.size(); c += every)
    body += label(kLeft + width * (double(c) + 0.5), top - 8, "middle", 10, kMuted, map.columns[c]);
  double y = top;
  for (const auto& [name, values] : map.rows) {
    body += label(kLeft - 8, y + kCell / 2 + 4, "end", 11, kInk, name);
    for (std::size_t c = 0; c < values.size(); ++c) body += cell(kLeft + width * double(c), y, width, values[c]);
    y += kCell;
  }
  body += key(y + 12, map.unit);
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}" style="max-width:{}px">{}</svg>)",
      kWidth, y + 46, escaped(map.title), kWidth, body);
}

}  // namespace switchyard
