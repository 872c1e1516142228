#include "train/analysis_page.h"

#include <spdlog/fmt/fmt.h>

#include <limits>

#include "train/heat_map.h"
#include "train/specialisation_files.h"

namespace switchyard {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #1b1f24; background: #fff;
  max-width: 860px; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; border-bottom: 1px solid #d5dae0; margin-top: 2.2rem; }
figure { margin: 1rem 0; break-inside: avoid; } svg { width: 100%; height: auto; font-family: inherit; }
figcaption, p.note { color: #57606a; font-size: .88rem; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .5rem; text-align: right; border-bottom: 1px solid #e3e6ea; }
th { border-bottom: 2px solid #8c959f; } th:first-child, td:first-child { text-align: left; }
td.tokens { text-align: left; } code { font: .95em ui-monospace, "DejaVu Sans Mono", monospace; margin-right: .7em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { color: #57606a; } dd { margin: 0; overflow-wrap: anywhere; }
@page { size: A4; margin: 14mm; }
@media print { body { max-width: none; margin: 0; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  tr { break-inside: avoid; } rect { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
)";

std::vector<std::string> numbers(std::size_t count) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

std::string figure(const HeatMap& map, const std::string& caption) {
  return fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n", to_svg(map), caption);
}

// In multiples of an equal share.
std::string picture_of(const std::vector<Spread>& spreads, const std::string& what) {
  HeatMap map{.title = fmt::format("Experts by {}", what),
              .unit = fmt::format("share of the {}'s choices, in equal shares", what),
              .rows_are = what,
              .columns_are = "expert",
              .columns = numbers(spreads.empty() ? 0 : spreads.front().share_E.size()),
              .rows = {}};
  for (const auto& [label, choices, share_E] : spreads) {
    map.rows.push_back({label, {}});
    for (const double share : share_E) map.rows.back().values.push_back(share * static_cast<double>(share_E.size()));
  }
  return figure(map, fmt::format("1 is what each expert would get if they shared the {}'s tokens evenly.", what));
}

std::string picture_of(const CoActivation& c) {
  const bool is_same = c.block == c.other_block;
  HeatMap map{.title = is_same ? fmt::format("Experts of block {} chosen together", c.block)
                               : fmt::format("From block {} to block {}", c.block, c.other_block),
              .unit = "times as often as if independent",
              .rows_are = fmt::format("expert, block {}", c.block),
              .columns_are = fmt::format("expert, block {}", c.other_block),
              .columns = numbers(c.of_F.size()),
              .rows = {}};
  for (std::size_t e = 0; e < c.of_E.size(); ++e) {
    map.rows.push_back({std::to_string(e), {}});
    for (std::size_t f = 0; f < c.of_F.size(); ++f)
      map.rows.back().values.push_back(is_same && e == f ? std::numeric_limits<double>::quiet_NaN() : c.lift(e, f));
  }
  return figure(map, is_same ? "A token goes to an expert once, so even unrelated experts of a block meet less often "
                               "than independent ones: (K − 1) E / (K (E − 1)) times."
                             : "1 is where the choice in one block says nothing about that in the other.");
}

std::string information_table(const std::vector<Told>& told, std::int64_t shuffles) {
  std::string html = fmt::format(
      "<table><tr><th>an expert tells about its token's</th><th>nats</th><th>at most</th><th>shuffled, mean</th>"
      "<th>sd</th><th>largest of {}</th></tr>\n",
      shuffles);
  for (const auto& [of, i] : told)
    html +=
        fmt::format("<tr><td>{}</td><td>{:.4f}</td><td>{:.4f}</td><td>{:.5f}</td><td>{:.5f}</td><td>{:.5f}</td></tr>\n",
                    of, i.nats, i.bound, i.shuffled_mean, i.shuffled_sd, i.shuffled_max);
  return html + "</table>\n";
}

std::string tokens_table(const BlockSpecialisation& block) {
  std::string html =
      "<table><tr><th>expert</th><th>share of choices</th><th>tokens that it gets most above its share, "
      "and how many times</th></tr>\n";
  for (std::size_t e = 0; e < block.load_E.size(); ++e) {
    std::string tokens;
    for (const PreferredToken& t : block.tokens)
      if (t.expert == static_cast<std::int64_t>(e))
        tokens += fmt::format("<code>{} {:.1f}</code>", escaped(visible(t.text)), t.lift);
    html += fmt::format("<tr><td>{}</td><td>{:.1f} %</td><td class=\"tokens\">{}</td></tr>\n", e, 100 * block.load_E[e],
                        tokens);
  }
  return html + "</table>\n";
}

std::string about(const Specialisation& s, const AnalysedCheckpoint& checkpoint) {
  std::string text;
  for (const auto& [domain, path] : checkpoint.sources)
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", domain, path);
  std::string html = "<dl>";
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"checkpoint", fmt::format("{}, step {}", checkpoint.path, checkpoint.step)},
           {"router", fmt::format("{}, {} experts", checkpoint.router, s.experts)},
           {"text", fmt::format("{} tokens; {}", s.tokens, text)},
           {"program", "switchyard " + checkpoint.version}})
    html += fmt::format("<dt>{}</dt><dd>{}</dd>", name, escaped(value));
  return html + "</dl>\n";
}

}  // namespace

std::string says(const BlockSpecialisation& block, std::int64_t shuffles) {
  const Information& i = block.told.front().information;
  return fmt::format(
      "block {}: an expert tells {:.4f} nats about the {} of its token, of at most {:.4f}; where labels are shuffled, "
      "{:.5f}, and in no shuffle of {} more than {:.5f}",
      block.block, i.nats, block.told.front().of, i.bound, i.shuffled_mean, shuffles, i.shuffled_max);
}

std::string analysis_page(const Specialisation& s, const AnalysedCheckpoint& checkpoint) {
  std::string body = "<h1>Where tokens go</h1>\n" + about(s, checkpoint) + "<ul>\n";
  for (const BlockSpecialisation& block : s.blocks)
    body += fmt::format("<li>In {}.</li>\n", escaped(says(block, s.shuffles)));
  body +=
      "</ul>\n<p class=\"note\">Blocks and experts are counted from 0. Every choice of a token counts as one; nothing "
      "was dropped. Shuffled: the same with labels dealt to other tokens. “Domain given token” is what the expert "
      "tells about the domain beyond what the token itself does.</p>\n";
  for (const BlockSpecialisation& block : s.blocks) {
    body += fmt::format("<h2>Block {}</h2>\n", block.block) + information_table(block.told, s.shuffles);
    body += picture_of(block.domains, "domain") + picture_of(block.classes, "class") + tokens_table(block);
    for (const CoActivation& c : s.together)
      if (c.block == block.block) body += picture_of(c);
  }
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>Where tokens go: "
      "{}</title>\n<style>{}</style>\n</head>\n"
      "<body>\n{}</body>\n</html>\n",
      escaped(checkpoint.path), kStyle, body);
}

}  // namespace switchyard
