#include <sstream>

#include "checkpoint/agreement.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/directory.h"
#include "checkpoint/integrity.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// Rank 0 looks, as a shared file system may show ranks different things: a line for the warning, one for each name.
Candidates agreed_candidates(const fs::path& dir, ProcessGroup& world) {
  std::istringstream lines(root_or_fail(world, [&] {
    const Candidates seen = candidates_in(dir);
    std::string words = seen.warning + "\n";
    for (const fs::path& path : seen.paths) words += path.filename().string() + "\n";
    return words;
  }));
  Candidates candidates;
  std::getline(lines, candidates.warning);
  for (std::string name; std::getline(lines, name);) candidates.paths.push_back(dir / name);
  return candidates;
}

}  // namespace

std::optional<Found> find_checkpoint(const fs::path& dir, ProcessGroup& world) {
  const auto [paths, warning] = agreed_candidates(dir, world);
  std::vector<std::string> warnings, damaged;
  if (!warning.empty()) warnings.push_back(warning);
  for (const fs::path& path : paths) {
    try {
      return Found{read_intact(path, world), warnings, damaged};
    } catch (const Error& error) {  // the same on every rank
      if (error.fault() != Fault::checkpoint) throw;
      damaged.push_back(path.filename().string());
      warnings.push_back(text(damaged.back(), " refused: ", error.what()));
    }
  }
  if (warnings.empty()) return std::nullopt;
  std::string why;
  for (const std::string& each : warnings) why += "\n  " + each;
  throw Error(text(dir.string(), ": no good checkpoint:", why), Fault::checkpoint);
}

}  // namespace switchyard
