#include "train/specialisation.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace switchyard {
namespace {

double ratio(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

std::int64_t sum(const std::vector<std::int64_t>& xs) { return std::accumulate(xs.begin(), xs.end(), std::int64_t{0}); }

// By label: choices of each expert.
std::vector<std::vector<std::int64_t>> counted(const RoutedBlock& block, std::int64_t experts, const Labels& labels) {
  std::vector counts(std::size_t(labels.count), std::vector<std::int64_t>(std::size_t(experts)));
  for (std::size_t i = 0; i < block.expert_TK.size(); ++i)
    if (const std::int32_t expert = block.expert_TK[i]; expert >= 0)
      ++counts[std::size_t(labels.of_T[i / std::size_t(block.choices)])][std::size_t(expert)];
  return counts;
}

std::vector<double> shares(const std::vector<std::int64_t>& counts) {
  std::vector<double> shares;
  for (const std::int64_t count : counts) shares.push_back(ratio(count, sum(counts)));
  return shares;
}

std::vector<Spread> spreads(const RoutedBlock& block, std::int64_t experts, const Labels& labels,
                            const std::vector<std::string>& names) {
  std::vector<Spread> spreads;
  const auto counts = counted(block, experts, labels);
  for (std::size_t l = 0; l < counts.size(); ++l)
    if (const std::int64_t choices = sum(counts[l]); choices > 0)
      spreads.push_back({names.at(l), choices, shares(counts[l])});
  return spreads;
}

// The tokens of a text, each once, and its labels by them.
struct SeenTokens {
  std::vector<std::int32_t> ids;
  std::vector<std::string> texts;
  Labels labels;

  SeenTokens(const std::vector<std::int32_t>& token_T, const Tokenizer& tokenizer) : ids(token_T) {
    std::ranges::sort(ids);
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (const std::int32_t& id : ids) texts.push_back(tokenizer.decode(std::span(&id, 1)));
    labels.count = static_cast<std::int32_t>(ids.size());
    for (const std::int32_t token : token_T)
      labels.of_T.push_back(static_cast<std::int32_t>(std::ranges::lower_bound(ids, token) - ids.begin()));
  }
};

std::vector<PreferredToken> preferred(const RoutedBlock& block, const std::vector<double>& load_E,
                                      const SeenTokens& seen, const SpecialisationOptions& options) {
  const auto counts = counted(block, std::ssize(load_E), seen.labels);
  std::vector<PreferredToken> all;
  for (std::size_t e = 0; e < load_E.size(); ++e) {
    std::vector<PreferredToken> of_expert;
    for (std::size_t v = 0; v < counts.size(); ++v) {
      const std::int64_t choices = sum(counts[v]);
      if (choices < options.least_choices || counts[v][e] == 0) continue;
      const double share = ratio(counts[v][e], choices);
      if (share > load_E[e])
        of_expert.push_back(
            {static_cast<std::int64_t>(e), seen.ids[v], seen.texts[v], choices, share, share / load_E[e]});
    }
    std::ranges::stable_sort(of_expert, std::greater{}, &PreferredToken::lift);
    of_expert.resize(std::min(of_expert.size(), std::size_t(options.tokens_an_expert)));
    all.insert(all.end(), of_expert.begin(), of_expert.end());
  }
  return all;
}

CoActivation together(const RoutedBlock& block, const RoutedBlock& other, std::int64_t experts) {
  const auto E = static_cast<std::size_t>(experts), K = static_cast<std::size_t>(block.choices),
             L = static_cast<std::size_t>(other.choices);
  CoActivation c{
      .block = block.block, .other_block = other.block, .tokens = std::ssize(block.expert_TK) / block.choices};
  c.of_E.resize(E), c.of_F.resize(E), c.both_EF.resize(E * E);
  for (std::size_t t = 0; t < std::size_t(c.tokens); ++t) {
    const std::int32_t *es = &block.expert_TK[t * K], *fs = &other.expert_TK[t * L];
    for (std::size_t k = 0; k < K; ++k)
      if (es[k] >= 0) ++c.of_E[std::size_t(es[k])];
    for (std::size_t l = 0; l < L; ++l) {
      if (fs[l] < 0) continue;
      ++c.of_F[std::size_t(fs[l])];
      for (std::size_t k = 0; k < K; ++k)
        if (es[k] >= 0) ++c.both_EF[std::size_t(es[k]) * E + std::size_t(fs[l])];
    }
  }
  return c;
}

}  // namespace

double CoActivation::share(std::size_t e, std::size_t f) const { return ratio(both_EF[e * of_F.size() + f], of_E[e]); }

double CoActivation::lift(std::size_t e, std::size_t f) const {
  const double expected = ratio(of_F[f], tokens);
  return expected > 0 ? share(e, f) / expected : 0;
}

const std::vector<std::string>& token_classes() {
  static const std::vector<std::string> names{"lower", "upper", "digit", "punctuation", "space", "other"};
  return names;
}

std::int32_t token_class(const std::string& text) {
  constexpr std::int32_t kOther = 5;
  const auto of_byte = [](char c) -> std::int32_t {
    if ('a' <= c && c <= 'z') return 0;
    if ('A' <= c && c <= 'Z') return 1;
    if ('0' <= c && c <= '9') return 2;
    if ('!' <= c && c <= '~') return 3;
    return c == ' ' || ('\t' <= c && c <= '\r') ? 4 : kOther;
  };
  if (text.empty()) return kOther;
  const std::int32_t first = of_byte(text.front());
  return std::ranges::all_of(text, [&](char c) { return of_byte(c) == first; }) ? first : kOther;
}

Specialisation specialisation_of(const RoutedText& text, const Tokenizer& tokenizer,
                                 const SpecialisationOptions& options) {
  const SeenTokens seen(text.token_T, tokenizer);
  const Labels none = Labels::none(text.token_T.size());
  const Labels domains{text.domain_T, static_cast<std::int32_t>(text.domains.size())};
  Labels classes{{}, static_cast<std::int32_t>(token_classes().size())};
  for (const std::int32_t v : seen.labels.of_T) classes.of_T.push_back(token_class(seen.texts[std::size_t(v)]));

  Specialisation s{.experts = text.experts,
                   .tokens = std::ssize(text.token_T),
                   .shuffles = options.shuffles,
                   .domains = text.domains};
  for (const RoutedBlock& block : text.blocks) {
    const std::vector<std::int64_t> all = counted(block, text.experts, none).front();
    s.blocks.push_back({.block = block.block,
                        .choices = sum(all),
                        .load_E = shares(all),
                        .domains = spreads(block, text.experts, domains, text.domains),
                        .classes = spreads(block, text.experts, classes, token_classes())});
    s.blocks.back().tokens = preferred(block, s.blocks.back().load_E, seen, options);
  }
  const auto tell = [&](const std::string& of, const Labels& labels, const Labels& strata) {
    const std::vector<Information> told = information(text, labels, strata, options.shuffles, options.seed, of);
    for (std::size_t b = 0; b < told.size(); ++b) s.blocks[b].told.push_back({of, told[b]});
  };
  tell("domain", domains, none);
  tell("class", classes, none);
  tell("token", seen.labels, none);
  tell("domain given token", domains, seen.labels);

  for (std::size_t b = 0; b < text.blocks.size(); ++b) {
    if (text.blocks[b].choices > 1) s.together.push_back(together(text.blocks[b], text.blocks[b], text.experts));
    if (b + 1 < text.blocks.size()) s.together.push_back(together(text.blocks[b], text.blocks[b + 1], text.experts));
  }
  return s;
}

}  // namespace switchyard
