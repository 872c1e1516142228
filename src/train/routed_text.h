#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/restore.h"

namespace switchyard {

// A token file, and the domain that its text is of.
struct DomainSource {
  std::string domain, path;
};

// The experts that each token went to in one MoE block of the model, counted from 0; (T, K), -1 where it went to fewer.
struct RoutedBlock {
  std::int64_t block = 0, choices = 0;
  std::vector<std::int32_t> expert_TK{};
};

// Tokens of several domains, and where each router sends them.
struct RoutedText {
  std::int64_t experts = 0;
  std::vector<std::string> domains{};
  std::vector<std::int32_t> token_T{}, domain_T{};
  std::vector<RoutedBlock> blocks{};
};

// About so many tokens of each domain, windows of a whole sequence spread evenly over its file, as an evaluation routes
// them: nothing is dropped, and where experts choose they choose in groups. For one rank. Error (Fault::usage) where
// there is nothing to tell: no experts, tokens that go to all of them, no domain, or two of one name.
RoutedText route_text(Restored& trained, const std::vector<DomainSource>& sources, std::int64_t tokens_each);

}  // namespace switchyard
