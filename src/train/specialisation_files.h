#pragma once

#include <string>

#include "train/specialisation.h"

namespace switchyard {

// A token's text so that each byte can be seen: a space is ␣, what is not printable \n, \t or \xNN.
std::string visible(const std::string& text);

// The tables as CSV, RFC 4180 with line feeds; docs/analysis.md has their columns.
std::string domains_csv(const Specialisation& s);
std::string classes_csv(const Specialisation& s);
std::string tokens_csv(const Specialisation& s);
std::string information_csv(const Specialisation& s);
std::string coactivation_csv(const Specialisation& s);

}  // namespace switchyard
