#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dist/call.h"

namespace switchyard {

// What a group is called: the same on each of its ranks, and unlike every other group of the job.
struct GroupName {
  std::string path;        // "world"; "world/3:0" is the part of colour 0 that the world's third collective split off
  std::vector<int> ranks;  // their numbers in the world
};
// "rank 1", "ranks 0, 2 and 5"
std::string describe(const std::vector<int>& ranks);

// What a rank says when it is asked about a meeting.
struct Account {
  std::int64_t reached = 0;                   // number of the group's last collective that it entered
  std::map<std::int64_t, std::string> calls;  // of the group's collectives those that it remembers, by number
  std::string story;                          // its last collectives in any group, for people

  std::string write() const;
  static Account read(const std::string& written);
};

// The last collectives that a rank entered, in any of its groups, which it knows by the numbers that join() gives.
// A group's collectives are numbered from 1 on.
class Journal {
 public:
  int join(GroupName name);
  const GroupName& name(int group) const { return groups_[static_cast<std::size_t>(group)].name; }
  std::int64_t reached(int group) const { return groups_[static_cast<std::size_t>(group)].reached; }

  // Returns the collective's number.
  std::int64_t enter(int group, const Call& call);
  void leave(int group, std::int64_t number);
  Account account(const std::string& path) const;

 private:
  struct Group {
    GroupName name;
    std::int64_t reached = 0;
  };
  struct Entry {
    int group;
    std::int64_t number;
    Call call;
    std::string part;  // of the model (Scope)
    bool is_over = false;
  };

  static constexpr std::size_t kRemembered = 32;
  std::deque<Group> groups_;
  std::deque<Entry> last_;
};

// Why collective `number` of a group does not come about: the ranks whose fault it seems, and what every rank that
// answered was doing. accounts: by rank of the world, empty where none came. Those that call another collective than
// most are at fault first, then those that do not answer, then those that are somewhere else.
std::string diagnose(const GroupName& group, std::int64_t number, const std::vector<std::optional<Account>>& accounts);

}  // namespace switchyard
