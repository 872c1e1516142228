#pragma once

#include "data/tokenizer.h"
#include "train/information.h"

namespace switchyard {

// How the choices of the tokens of one label spread over the experts.
struct Spread {
  std::string label;
  std::int64_t choices = 0;
  std::vector<double> share_E{};  // sums to 1
};

struct PreferredToken {
  std::int64_t expert = 0;
  std::int32_t token = 0;
  std::string text;
  std::int64_t choices = 0;  // that this token made, of any expert
  double share = 0;          // of these, those of the expert
  double lift = 0;           // the same over the expert's share of all tokens' choices
};

// What the choice of an expert tells about its token: "domain", "class", "token", "domain given token".
struct Told {
  std::string of;
  Information information;
};

struct BlockSpecialisation {
  std::int64_t block = 0, choices = 0;
  std::vector<double> load_E{};              // share of all choices
  std::vector<Spread> domains{}, classes{};  // those that have choices
  std::vector<PreferredToken> tokens{};      // by expert, those of largest lift first
  std::vector<Told> told{};
};

// Experts that the same tokens went to: two of one block where tokens go to several, or one of each of two consecutive
// MoE blocks.
struct CoActivation {
  std::int64_t block = 0, other_block = 0, tokens = 0;
  std::vector<std::int64_t> of_E{}, of_F{}, both_EF{};  // tokens that went to e, to f, to both

  double share(std::size_t e, std::size_t f) const;  // of the tokens that went to e, those that went to f; 0 of none
  double lift(std::size_t e, std::size_t f) const;   // the same over the share of all tokens that went to f
};

struct Specialisation {
  std::int64_t experts = 0, tokens = 0, shuffles = 0;
  std::vector<std::string> domains{};
  std::vector<BlockSpecialisation> blocks{};
  std::vector<CoActivation> together{};
};

// Of the bytes of a token: lower, upper, digit, punctuation, space, or other: beyond ASCII, control characters, and
// tokens whose bytes are not all of one class.
const std::vector<std::string>& token_classes();
std::int32_t token_class(const std::string& text);

struct SpecialisationOptions {
  std::int64_t shuffles = 20;
  std::uint64_t seed = 1;              // of the shuffles
  std::int64_t tokens_an_expert = 12;  // of preferred tokens
  std::int64_t least_choices = 32;     // that a token has made to be among them
};
Specialisation specialisation_of(const RoutedText& text, const Tokenizer& tokenizer,
                                 const SpecialisationOptions& options);

}  // namespace switchyard
