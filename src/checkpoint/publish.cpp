#include "checkpoint/publish.h"

#include "checkpoint/directory.h"
#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/rank_file.h"

namespace switchyard {

namespace fs = std::filesystem;

void prepare(const fs::path& dir, const fs::path& temporary, std::int64_t bytes) {
  if (!fs::exists(dir)) {
    fs::create_directories(dir);
    sync_path(fs::absolute(dir).lexically_normal().parent_path());
  }
  clear_leftovers(dir);
  require_space(dir, bytes + bytes / 20 + (1 << 20));
  fs::create_directory(temporary);
}

void complete(const fs::path& temporary, Checkpoint& checkpoint) {
  const std::string name = "checkpoint.h5";
  Hdf5File file = Hdf5File::create(temporary / name);
  for (const StoredTensor& tensor : checkpoint.tensors) file.write_virtual(tensor);
  file.close();
  sync_path(temporary / name);
  checkpoint.files.push_back(stored_file(temporary, name));
  const std::string manifest = to_manifest(checkpoint);
  write_text(temporary / "manifest.json", manifest);
  write_text(temporary / "SHA256SUMS", to_sums(checkpoint, manifest));
  sync_path(temporary);
}

void publish(const fs::path& temporary, const Checkpoint& checkpoint, const SaveObserver& at) {
  const fs::path& final = checkpoint.path;
  const fs::path dir = final.parent_path(), aside = dir / (".old-" + final.filename().string());
  const bool replaces = fs::exists(final);
  if (replaces) rename_path(final, aside);
  at(SaveStage::set_aside);
  rename_path(temporary, final);
  sync_path(dir);
  at(SaveStage::published);
  point_latest(final);
  at(SaveStage::pointed);
  if (replaces) discard(aside);
}

void prune(const fs::path& dir, std::int64_t step, int keep, const std::set<std::string>& damaged) {
  for (const auto& [older, path] : published_in(dir)) {
    if (older > step) continue;
    if (keep <= 0)
      discard(path);
    else if (!damaged.contains(path.filename().string()))
      --keep;
  }
}

}  // namespace switchyard
