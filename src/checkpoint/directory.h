#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

// The names in a directory of checkpoints. While step-N is replaced, the old one stands aside as .old-step-N;
// .tmp-… is being written and .trash-… being deleted.

std::string step_name(std::int64_t step);                      // "step-00000500"
std::optional<std::int64_t> step_of(const std::string& name);  // the inverse; nothing for any other name

struct Published {
  std::int64_t step = 0;
  std::filesystem::path path;
};
// Newest first; an old one that stands aside comes after the one that took its place.
std::vector<Published> published_in(const std::filesystem::path& dir);

// Restores or removes what a crash left behind. Only while nobody saves.
void clear_leftovers(const std::filesystem::path& dir);
// Moves a checkpoint out of sight; what that fails for stays. empty_trash then deletes it, which takes time.
void discard(const std::filesystem::path& path);
void empty_trash(const std::filesystem::path& dir);

// `latest` names a checkpoint and pins its SHA256SUMS; a name alone, as a person would write it, is good too.
void point_latest(const std::filesystem::path& checkpoint);

// Where to look for a good checkpoint: first what `latest` names, then the others, newest first.
struct Candidates {
  std::vector<std::filesystem::path> paths;
  std::string warning;  // why `latest` did not count, where it did not
};
Candidates candidates_in(const std::filesystem::path& dir);

}  // namespace switchyard
