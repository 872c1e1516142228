#include "dist/consistency.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string_view>

namespace switchyard {
namespace {

using Table = std::map<std::string, std::string>;  // fact -> value
using Value = std::optional<std::string_view>;     // of a fact on one rank, which may not know it

// "4 name5 value", each string behind its length, so that it may hold anything.
std::string write(const Table& table) {
  std::string out;
  for (const auto& [name, value] : table) out += text(name.size(), ' ', name, value.size(), ' ', value);
  return out;
}

std::string take(std::string_view& in) {
  std::size_t length = 0;
  const char* end = std::from_chars(in.data(), in.data() + in.size(), length).ptr + 1;
  in.remove_prefix(static_cast<std::size_t>(end - in.data()));
  const std::string out(in.substr(0, length));
  in.remove_prefix(length);
  return out;
}

Table read(std::string_view in) {
  Table table;
  while (!in.empty()) {
    const std::string name = take(in);
    table[name] = take(in);
  }
  return table;
}

// About 80 characters of a value on one line, beginning shortly before the place where it differs from the other.
std::string excerpt(Value value, std::size_t difference) {
  constexpr std::size_t kWidth = 80, kBefore = 30;
  if (!value) return "nothing";
  const std::size_t begin = value->size() <= kWidth ? 0 : difference - std::min(difference, kBefore);
  std::string out(value->substr(begin, kWidth));
  std::ranges::replace_if(
      out, [](unsigned char c) { return c < ' '; }, ' ');
  return text(begin > 0 ? "..." : "", '"', out, '"', begin + kWidth < value->size() ? "..." : "");
}

std::string have(const std::vector<int>& ranks) {
  constexpr std::size_t kShown = 16;
  std::string out = ranks.size() > 1 ? "ranks " : "rank ";
  for (std::size_t i = 0; i < std::min(ranks.size(), kShown); ++i) out += text(i ? ", " : "", ranks[i]);
  if (ranks.size() > kShown) out += text(" and ", ranks.size() - kShown, " more");
  return out + (ranks.size() > 1 ? " have " : " has ");
}

// One line for each value that differs from the most common one; empty where all are equal.
std::string describe(const std::string& name, const std::vector<Table>& tables, std::span<const int> numbers) {
  std::map<Value, std::vector<int>> holders;
  for (std::size_t rank = 0; rank < tables.size(); ++rank) {
    const auto it = tables[rank].find(name);
    const int number = numbers.empty() ? static_cast<int>(rank) : numbers[rank];
    holders[it == tables[rank].end() ? Value{} : Value{it->second}].push_back(number);
  }
  const auto& [common, majority] = *std::ranges::max_element(
      holders, {}, [](const auto& holder) { return std::pair(holder.second.size(), -holder.second.front()); });
  std::string out;
  for (const auto& [value, ranks] : holders) {
    if (value == common) continue;
    const std::string_view a = value.value_or(""), b = common.value_or("");
    const auto difference = static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
    out += text("\n  ", name, ": ", have(ranks), excerpt(value, difference), ", ", have(majority),
                excerpt(common, difference));
  }
  return out;
}

}  // namespace

void require_agreement(const Facts& facts, ProcessGroup& group, std::span<const int> numbers) {
  Table mine;
  for (const auto& [name, value] : facts) mine[name] += value;
  const std::string written = write(mine);

  const std::int32_t differs = written != broadcast_text(group, written, 0);
  Tensor any_differs = Tensor::of<std::int32_t>({&differs, 1}, {1}, Device{});
  group.all_reduce(any_differs, Reduce::max);
  if (*any_differs.data<std::int32_t>() == 0) return;

  std::vector<Table> tables;
  Table names;
  for (const std::string& theirs : all_gather_text(group, written)) {
    tables.push_back(read(theirs));
    names.insert(tables.back().begin(), tables.back().end());
  }
  std::string what = "the ranks do not agree:";
  for (const auto& [name, value] : names) what += describe(name, tables, numbers);
  throw Error(what, Fault::communication);
}

}  // namespace switchyard
