#include "dist/journal.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "autograd/scope.h"

namespace switchyard {
namespace {

constexpr std::size_t kTold = 4;           // collectives of a story
constexpr std::size_t kLinesOfRanks = 16;  // of a diagnosis

// Calls by who made them.
using Votes = std::map<std::string, std::vector<int>>;

Votes calls_of(std::int64_t number, const std::vector<int>& ranks,
               const std::vector<std::optional<Account>>& accounts) {
  Votes votes;
  for (const int rank : ranks) {
    const auto& account = accounts[static_cast<std::size_t>(rank)];
    if (!account) continue;
    const auto call = account->calls.find(number);
    if (call != account->calls.end()) votes[call->second].push_back(rank);
  }
  return votes;
}

// The first collective that not all of the group called alike, as far as they remember.
std::string difference(const GroupName& group, std::int64_t last, const std::vector<std::optional<Account>>& accounts) {
  std::int64_t first = last;
  for (const auto& account : accounts)
    if (account && !account->calls.empty()) first = std::min(first, account->calls.begin()->first);
  for (std::int64_t number = first; number <= last; ++number) {
    const Votes votes = calls_of(number, group.ranks, accounts);
    if (votes.size() < 2) continue;
    const auto& [common, majority] = *std::ranges::max_element(
        votes, {}, [](const auto& vote) { return std::pair(vote.second.size(), -vote.second.front()); });
    std::string what;
    for (const auto& [call, ranks] : votes)
      if (call != common)
        what += text(what.empty() ? "" : ", ", describe(ranks), ranks.size() > 1 ? " call " : " calls ", call);
    return text(what, " where ", describe(majority), majority.size() > 1 ? " call " : " calls ", common);
  }
  return {};
}

std::string silence(const std::vector<std::optional<Account>>& accounts) {
  std::vector<int> silent;
  for (std::size_t rank = 0; rank < accounts.size(); ++rank)
    if (!accounts[rank]) silent.push_back(static_cast<int>(rank));
  if (silent.empty()) return {};
  const bool several = silent.size() > 1;
  return text(describe(silent), several ? " do not answer: they are" : " does not answer: it is",
              " stopped, dead, or busy outside of collectives");
}

std::string absence(const GroupName& group, std::int64_t number, const std::vector<std::optional<Account>>& accounts) {
  std::vector<int> absent, present;
  for (const int rank : group.ranks) {
    const auto& account = accounts[static_cast<std::size_t>(rank)];
    if (account) (account->reached < number ? absent : present).push_back(rank);
  }
  if (absent.empty()) return {};
  if (present.size() < absent.size())
    return text(describe(present), present.size() > 1 ? " wait" : " waits", " where ", describe(absent),
                absent.size() > 1 ? " do" : " does", " not come");
  return text(describe(absent), absent.size() > 1 ? " have" : " has", " not come to collective ", number, " of ",
              describe(group.ranks));
}

}  // namespace

std::string describe(const std::vector<int>& ranks) {
  std::string out = ranks.size() > 1 ? "ranks " : "rank ";
  for (std::size_t i = 0; i < std::min(ranks.size(), kLinesOfRanks); ++i)
    out += text(i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ", ranks[i]);
  if (ranks.size() > kLinesOfRanks) out += text(" and ", ranks.size() - kLinesOfRanks, " more");
  return out;
}

std::string Account::write() const {
  std::string out = text(reached, '\n');
  for (const auto& [number, call] : calls) out += text(number, ' ', call, '\n');
  return text(out, '\n', story);
}

Account Account::read(const std::string& written) {
  Account account;
  std::istringstream in(written);
  std::string line;
  std::getline(in, line);
  std::from_chars(line.data(), line.data() + line.size(), account.reached);
  while (std::getline(in, line) && !line.empty()) {
    std::int64_t number = 0;
    const char* end = std::from_chars(line.data(), line.data() + line.size(), number).ptr;
    account.calls[number] = line.substr(std::min(line.size(), static_cast<std::size_t>(end - line.data()) + 1));
  }
  std::getline(in, account.story);
  return account;
}

int Journal::join(GroupName name) {
  groups_.push_back({std::move(name)});
  return static_cast<int>(groups_.size()) - 1;
}

std::int64_t Journal::enter(int group, const Call& call) {
  if (last_.size() == kRemembered) last_.pop_front();
  last_.push_back({group, ++groups_[static_cast<std::size_t>(group)].reached, call, Scope::current()});
  return last_.back().number;
}

void Journal::leave(int group, std::int64_t number) {
  for (Entry& entry : last_)
    if (entry.group == group && entry.number == number) entry.is_over = true;
}

Account Journal::account(const std::string& path) const {
  Account account;
  for (const Group& group : groups_)
    if (group.name.path == path) account.reached = group.reached;
  for (const Entry& entry : last_)
    if (name(entry.group).path == path) account.calls[entry.number] = text(entry.call);
  if (last_.empty()) account.story = "has come to no collective";
  for (std::size_t i = 0; i < std::min(kTold, last_.size()); ++i) {
    const Entry& entry = last_[last_.size() - 1 - i];
    if (i == 0) account.story = entry.is_over ? "is past " : "waits in ";
    account.story += text(i > 1   ? ", "
                          : i > 0 ? "; before: "
                                  : "",
                          entry.call, entry.part.empty() ? "" : " of " + entry.part, " (collective ", entry.number,
                          " of ", describe(name(entry.group).ranks), ')');
  }
  return account;
}

std::string diagnose(const GroupName& group, std::int64_t number, const std::vector<std::optional<Account>>& accounts) {
  std::string what = difference(group, number, accounts);
  if (what.empty()) what = silence(accounts);
  if (what.empty()) what = absence(group, number, accounts);
  if (what.empty()) what = "all ranks answer and call the same; the way between them may be broken";
  std::size_t lines = 0;
  for (std::size_t rank = 0; rank < accounts.size() && lines < kLinesOfRanks; ++rank)
    if (accounts[rank]) what += text("\n  rank ", rank, ' ', accounts[rank]->story), ++lines;
  return what;
}

}  // namespace switchyard
