#include "train/spelling.h"

#include <algorithm>
#include <limits>

namespace switchyard {

namespace {

constexpr std::size_t longest_word = 64;

std::string folded(std::string word) {
  for (char& c : word) c = c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return word;
}

bool contains(const std::string& whole, const std::string& part) {
  return part.size() >= 4 && whole.find(part) != std::string::npos;
}

}  // namespace

int edit_distance(const std::string& a, const std::string& b) {
  // before[j], last[j], row[j]: from the first i - 2, i - 1 and i letters of a to the first j of b
  std::vector<int> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, last);
    std::swap(last, row);
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::optional<std::string> nearest(const std::string& word, const std::vector<std::string>& candidates) {
  if (word.size() > longest_word) return std::nullopt;
  const std::string wanted = folded(word);
  std::optional<std::string> best;
  int best_distance = std::numeric_limits<int>::max();
  for (const std::string& candidate : candidates) {
    const int distance = edit_distance(wanted, candidate);
    const std::size_t letters = std::max(wanted.size(), candidate.size());
    if (distance < best_distance && distance <= std::max(1, static_cast<int>(letters / 3))) {
      best_distance = distance;
      best = candidate;
    }
  }
  if (best) return best;
  const auto related = std::ranges::find_if(
      candidates, [&](const std::string& c) { return contains(wanted, c) || contains(c, wanted); });
  return related == candidates.end() ? std::nullopt : std::optional(*related);
}

}  // namespace switchyard
