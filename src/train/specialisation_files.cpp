#include "train/specialisation_files.h"

#include <spdlog/fmt/fmt.h>

namespace switchyard {
namespace {

std::string field(const std::string& value) {
  if (value.find_first_of(",\"\r\n") == std::string::npos) return value;
  std::string quoted = "\"";
  for (const char c : value) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::string spreads_csv(const Specialisation& s, const char* label, std::vector<Spread> BlockSpecialisation::*spreads) {
  std::string csv = fmt::format("block,{},expert,share\n", label);
  for (const BlockSpecialisation& block : s.blocks)
    for (const Spread& spread : block.*spreads)
      for (std::size_t e = 0; e < spread.share_E.size(); ++e)
        csv += fmt::format("{},{},{},{:.6f}\n", block.block, field(spread.label), e, spread.share_E[e]);
  return csv;
}

}  // namespace

std::string visible(const std::string& text) {
  std::string seen;
  for (const char c : text) {
    if (c == ' ')
      seen += "␣";
    else if (c == '\n')
      seen += "\\n";
    else if (c == '\t')
      seen += "\\t";
    else if ('!' <= c && c <= '~')
      seen += c;
    else
      seen += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return seen;
}

std::string domains_csv(const Specialisation& s) { return spreads_csv(s, "domain", &BlockSpecialisation::domains); }

std::string classes_csv(const Specialisation& s) { return spreads_csv(s, "class", &BlockSpecialisation::classes); }

std::string tokens_csv(const Specialisation& s) {
  std::string csv = "block,expert,token,text,choices,share,lift\n";
  for (const BlockSpecialisation& block : s.blocks)
    for (const PreferredToken& t : block.tokens)
      csv += fmt::format("{},{},{},{},{},{:.6f},{:.4f}\n", block.block, t.expert, t.token, field(visible(t.text)),
                         t.choices, t.share, t.lift);
  return csv;
}

std::string information_csv(const Specialisation& s) {
  std::string csv = "block,of,nats,bound,shuffled_mean,shuffled_sd,shuffled_max,shuffles,choices\n";
  for (const BlockSpecialisation& block : s.blocks)
    for (const auto& [of, i] : block.told)
      csv += fmt::format("{},{},{:.6f},{:.6f},{:.8f},{:.8f},{:.8f},{},{}\n", block.block, of, i.nats, i.bound,
                         i.shuffled_mean, i.shuffled_sd, i.shuffled_max, s.shuffles, block.choices);
  return csv;
}

std::string coactivation_csv(const Specialisation& s) {
  std::string csv = "block,expert,other_block,other_expert,tokens,share,lift\n";
  for (const CoActivation& c : s.together)
    for (std::size_t e = 0; e < c.of_E.size(); ++e)
      for (std::size_t f = 0; f < c.of_F.size(); ++f)
        if (c.block != c.other_block || e != f)
          csv += fmt::format("{},{},{},{},{},{:.6f},{:.4f}\n", c.block, e, c.other_block, f,
                             c.both_EF[e * c.of_F.size() + f], c.share(e, f), c.lift(e, f));
  return csv;
}

}  // namespace switchyard
