#pragma once

#include <optional>
#include <string>
#include <vector>

namespace switchyard {

// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
int edit_distance(const std::string& a, const std::string& b);

// The candidate that `word` most likely meant: within a third of its letters by edit distance, without regard to case,
// or else one that it contains or that contains it (num_experts, experts).
std::optional<std::string> nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace switchyard
