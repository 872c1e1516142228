#include "checkpoint/directory.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <utility>

#include "checkpoint/disk.h"
#include "files/sha256.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStep = "step-", kOld = ".old-";
constexpr std::size_t kDigits = 8;

std::string name_of(const fs::path& path) { return path.filename().string(); }

std::vector<fs::path> entries(const fs::path& dir) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error))
    paths.push_back(it->path());
  SY_REQUIRE(!error, Fault::checkpoint, dir.string(), ": ", error.message());
  return paths;
}

// What `latest` points at, or Error (Fault::checkpoint) when it is no good.
fs::path read_latest(const fs::path& dir) {
  std::istringstream lines(read_text(dir / "latest", 4096));
  std::string name, sums, rest;
  std::getline(lines, name);
  std::getline(lines, sums);
  std::getline(lines, rest, '\0');
  SY_REQUIRE(step_of(name) && rest.empty(), Fault::checkpoint, "latest: names no checkpoint");
  const fs::path path = dir / name;
  SY_REQUIRE(fs::is_directory(path), Fault::checkpoint, "latest: names ", name, ", which is not there");
  SY_REQUIRE(sums.empty() || sums == sha256_of_file(path / "SHA256SUMS", Fault::checkpoint), Fault::checkpoint,
             "latest: its SHA-256 is not that of ", name, "/SHA256SUMS");
  return path;
}

}  // namespace

std::string step_name(std::int64_t step) {
  const std::string digits = std::to_string(step);
  return std::string(kStep) + std::string(kDigits - std::min(kDigits, digits.size()), '0') + digits;
}

std::optional<std::int64_t> step_of(const std::string& name) {
  std::int64_t step = 0;
  if (!name.starts_with(kStep)) return std::nullopt;
  std::from_chars(name.data() + kStep.size(), name.data() + name.size(), step);
  return step >= 0 && step_name(step) == name ? std::optional(step) : std::nullopt;
}

std::vector<Published> published_in(const fs::path& dir) {
  std::vector<Published> found;
  for (const fs::path& path : entries(dir)) {
    const std::string name = name_of(path);
    if (const auto step = step_of(name.starts_with(kOld) ? name.substr(kOld.size()) : name))
      found.push_back({*step, path});
  }
  // Newest first, and "step-…" before ".old-step-…".
  std::ranges::sort(found, std::greater(), [](const Published& p) { return std::pair(p.step, p.path); });
  return found;
}

void clear_leftovers(const fs::path& dir) {
  for (const fs::path& path : entries(dir)) {
    const std::string name = name_of(path);
    if (name.starts_with(kOld)) {
      const fs::path now = dir / name.substr(kOld.size());
      if (fs::exists(now))
        discard(path);
      else
        rename_path(path, now);
    } else if (name.starts_with(".tmp-")) {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  }
  empty_trash(dir);
}

void discard(const fs::path& path) {
  std::error_code ignored;
  fs::rename(path, path.parent_path() / (".trash-" + name_of(path)), ignored);
}

void empty_trash(const fs::path& dir) {
  std::error_code ignored;
  for (const fs::path& path : entries(dir))
    if (name_of(path).starts_with(".trash-")) fs::remove_all(path, ignored);
}

void point_latest(const fs::path& checkpoint) {
  const fs::path dir = checkpoint.parent_path();
  write_text(dir / "latest",
             name_of(checkpoint) + "\n" + sha256_of_file(checkpoint / "SHA256SUMS", Fault::checkpoint) + "\n");
  sync_path(dir);
}

Candidates candidates_in(const fs::path& dir) {
  Candidates candidates;
  if (!fs::exists(dir)) return candidates;
  const auto published = published_in(dir);
  const bool pointed = fs::exists(dir / "latest");
  fs::path latest;
  try {
    if (pointed || !published.empty()) latest = read_latest(dir);
  } catch (const Error& error) {
    candidates.warning = error.what();
  }
  if (!latest.empty()) candidates.paths.push_back(latest);
  for (const auto& [step, path] : published)
    if (path != latest) candidates.paths.push_back(path);
  return candidates;
}

}  // namespace switchyard
