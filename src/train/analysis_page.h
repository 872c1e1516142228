#pragma once

#include <string>

#include "train/specialisation.h"

namespace switchyard {

// What the page says it is about.
struct AnalysedCheckpoint {
  std::string path, router, version;
  std::int64_t step = 0;
  std::vector<DomainSource> sources{};
};

// One file without scripts, links or fonts from elsewhere, for a screen or a printer.
std::string analysis_page(const Specialisation& s, const AnalysedCheckpoint& checkpoint);

// Of the domain: "block 1: an expert tells 0.3012 nats about the domain of its token, of at most 1.6094; …".
std::string says(const BlockSpecialisation& block, std::int64_t shuffles);

}  // namespace switchyard
