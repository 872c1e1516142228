#include "train/specialisation.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tensor/philox.h"
#include "train/analysis_page.h"
#include "train/specialisation_files.h"

namespace switchyard {
namespace {

constexpr std::int64_t kExperts = 3;
constexpr std::size_t kTokens = 600;
const std::string kAlphabet = "aZ7 ,\n";

// Two domains; block 1 chooses two experts of which domain and token decide, and here and there only one.
RoutedText text() {
  RoutedText text{.experts = kExperts, .domains = {"prose", "a \"code\", say"}};
  RoutedBlock first{.block = 1, .choices = 2}, second{.block = 3, .choices = 1};
  for (std::size_t t = 0; t < kTokens; ++t) {
    const auto bits = philox({1, 1}, t);
    text.token_T.push_back(kAlphabet[bits[0] % kAlphabet.size()]);
    text.domain_T.push_back(t < kTokens / 3 ? 0 : 1);
    const auto best = std::int32_t((bits[1] % 4 == 0 ? bits[2] : std::uint32_t(text.domain_T.back())) % 3);
    first.expert_TK.push_back(best);
    first.expert_TK.push_back(bits[3] % 8 == 0 ? -1 : (best + 1 + std::int32_t(bits[3] % 2)) % 3);
    second.expert_TK.push_back(text.token_T.back() % 3);
  }
  text.blocks = {first, second};
  return text;
}

std::int64_t count_if(const RoutedBlock& block, auto condition) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < block.expert_TK.size(); ++i)
    if (block.expert_TK[i] >= 0) count += condition(i / std::size_t(block.choices), block.expert_TK[i]);
  return count;
}

// Every share by its definition, as loops over all choices.
TEST(Specialisation, SharesAreOfChoices) {
  const RoutedText t = text();
  const Specialisation s = specialisation_of(t, ByteTokenizer(), {.shuffles = 2, .least_choices = 1});
  ASSERT_EQ(s.blocks.size(), 2u);
  for (std::size_t b = 0; b < 2; ++b) {
    const RoutedBlock& block = t.blocks[b];
    const BlockSpecialisation& of = s.blocks[b];
    EXPECT_EQ(of.block, block.block);
    EXPECT_EQ(of.choices, count_if(block, [](auto...) { return true; }));
    ASSERT_EQ(of.domains.size(), 2u);
    EXPECT_EQ(of.domains[1].label, "a \"code\", say");
    ASSERT_EQ(of.classes.size(), 5u) << "none of the tokens is of another class";
    for (std::int32_t e = 0; e < kExperts; ++e) {
      const auto all = double(count_if(block, [&](std::size_t, std::int32_t to) { return to == e; }));
      EXPECT_DOUBLE_EQ(of.load_E[std::size_t(e)], all / double(of.choices));
      for (std::int32_t d = 0; d < 2; ++d) {
        const auto of_domain = [&](std::size_t i, std::int32_t to) { return t.domain_T[i] == d && to == e; };
        const auto these = double(count_if(block, of_domain));
        const Spread& spread = of.domains[std::size_t(d)];
        EXPECT_DOUBLE_EQ(spread.share_E[std::size_t(e)], these / double(spread.choices));
      }
    }
    for (const auto* spreads : {&of.domains, &of.classes})
      for (const Spread& spread : *spreads)
        EXPECT_NEAR(spread.share_E[0] + spread.share_E[1] + spread.share_E[2], 1, 1e-12);
    for (const PreferredToken& p : of.tokens) {
      const auto of_token =
          double(count_if(block, [&](std::size_t i, std::int32_t) { return t.token_T[i] == p.token; }));
      const auto both = double(
          count_if(block, [&](std::size_t i, std::int32_t to) { return t.token_T[i] == p.token && to == p.expert; }));
      EXPECT_EQ(double(p.choices), of_token);
      EXPECT_DOUBLE_EQ(p.share, both / of_token);
      EXPECT_DOUBLE_EQ(p.lift, both / of_token / of.load_E[std::size_t(p.expert)]);
      EXPECT_GT(p.lift, 1);
    }
    EXPECT_FALSE(of.tokens.empty());
    ASSERT_EQ(of.told.size(), 4u);
  }
  const auto nats = [&](std::size_t b, std::size_t of) { return s.blocks[b].told[of].information.nats; };
  EXPECT_GT(nats(0, 0), 10 * s.blocks[0].told[0].information.shuffled_max) << "block 1 goes by the domain";
  EXPECT_NEAR(nats(1, 3), 0, 1e-12) << "block 3 goes by the token alone";
  EXPECT_NEAR(nats(1, 2), s.blocks[1].told[2].information.bound, 1e-12) << "which tells its expert";
}

TEST(Specialisation, ExpertsChosenTogether) {
  const RoutedText t = text();
  const Specialisation s = specialisation_of(t, ByteTokenizer(), {.shuffles = 2});
  ASSERT_EQ(s.together.size(), 2u) << "block 3 chooses once";
  for (const CoActivation& c : s.together) {
    EXPECT_EQ(c.block, 1);
    EXPECT_EQ(c.other_block, &c == &s.together[0] ? 1 : 3);
    const RoutedBlock& other = t.blocks[c.other_block == 1 ? 0 : 1];
    for (std::size_t e = 0; e < kExperts; ++e)
      for (std::size_t f = 0; f < kExperts; ++f) {
        const auto goes = [](const RoutedBlock& block, std::size_t token, std::size_t expert) {
          for (std::size_t k = 0; k < std::size_t(block.choices); ++k)
            if (block.expert_TK[token * std::size_t(block.choices) + k] == std::int32_t(expert)) return true;
          return false;
        };
        double of_e = 0, of_f = 0, both = 0;
        for (std::size_t token = 0; token < kTokens; ++token) {
          of_e += goes(t.blocks[0], token, e);
          of_f += goes(other, token, f);
          both += goes(t.blocks[0], token, e) && goes(other, token, f);
        }
        EXPECT_EQ(double(c.both_EF[e * kExperts + f]), both);
        EXPECT_DOUBLE_EQ(c.share(e, f), both / of_e);
        EXPECT_DOUBLE_EQ(c.lift(e, f), both / of_e / (of_f / kTokens));
      }
  }
}

TEST(Specialisation, ClassesOfTokens) {
  const auto name = [](const std::string& text) { return token_classes()[std::size_t(token_class(text))]; };
  EXPECT_EQ(name("q"), "lower");
  EXPECT_EQ(name("Q"), "upper");
  EXPECT_EQ(name("0"), "digit");
  for (const char* mark : {"!", "/", ":", "@", "[", "`", "{", "~"}) EXPECT_EQ(name(mark), "punctuation") << mark;
  for (const char* space : {" ", "\t", "\n", "\r"}) EXPECT_EQ(name(space), "space");
  for (const char* other : {"\x01", "\x7f", "\xc3", "<|endoftext|>", ""}) EXPECT_EQ(name(other), "other") << other;
  EXPECT_EQ(name("the"), "lower");
  EXPECT_EQ(name("The"), "other") << "tokens of several letters are of their class only where all bytes are";
}

TEST(Specialisation, Files) {
  const Specialisation s = specialisation_of(text(), ByteTokenizer(), {.shuffles = 2});
  const std::string domains = domains_csv(s);
  EXPECT_TRUE(domains.starts_with("block,domain,expert,share\n1,prose,0,0.")) << domains;
  EXPECT_NE(domains.find("\n3,\"a \"\"code\"\", say\",2,0."), std::string::npos) << domains;
  EXPECT_EQ(std::ranges::count(domains, '\n'), 1 + 2 * 2 * 3);
  EXPECT_EQ(std::ranges::count(coactivation_csv(s), '\n'), 1 + 6 + 9) << "no expert beside itself";
  EXPECT_EQ(std::ranges::count(information_csv(s), '\n'), 1 + 2 * 4);
  EXPECT_NE(tokens_csv(s).find("\",\""), std::string::npos) << "a comma is quoted";
  EXPECT_NE(tokens_csv(s).find(",\\n,"), std::string::npos) << "and a line's end is seen";
  EXPECT_EQ(visible("a b\t\xff"), "a␣b\\t\\xff");

  const std::string page =
      analysis_page(s, {.path = "run<1>", .router = "glam", .version = "0", .step = 7, .sources = {{"prose", "p"}}});
  EXPECT_NE(page.find("run&lt;1&gt;, step 7"), std::string::npos);
  EXPECT_NE(page.find("a &quot;code&quot;, say"), std::string::npos);
  EXPECT_EQ(page.find("run<1>"), std::string::npos);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  std::size_t pictures = 0;
  for (std::size_t at = page.find("<svg"); at != std::string::npos; at = page.find("<svg", at + 1)) ++pictures;
  EXPECT_EQ(pictures, 2 * 2 + 2u) << "domains and classes of each block, and what is chosen together";
}

}  // namespace
}  // namespace switchyard
