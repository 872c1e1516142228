#include <set>

#include "checkpoint/checkpoint.h"
#include "checkpoint/directory.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/integrity.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

fs::path checkpoint_at(const fs::path& path) {
  if (fs::exists(path / "manifest.json")) return path;
  const Candidates candidates = candidates_in(path);
  return candidates.paths.empty() ? path : candidates.paths.front();
}

// Every dataset of an intact file is there, of the type and shape that the manifest says.
void require_datasets(const Checkpoint& checkpoint, const StoredFile& file) {
  Hdf5File opened = Hdf5File::open(checkpoint.path / file.name);
  for (const StoredTensor& tensor : checkpoint.tensors)
    for (const StoredSlice& slice : tensor.slices)
      if (slice.file == file.name) opened.require_ours(slice, tensor.dtype);
}

}  // namespace

CheckpointReport inspect_checkpoint(const fs::path& path) {
  const fs::path at = checkpoint_at(path);
  return {from_manifest(read_manifest(at), at), {}};
}

CheckpointReport verify_checkpoint(const fs::path& path) {
  CheckpointReport report;
  const auto noting = [&](auto check) {
    try {
      check();
    } catch (const std::exception& error) {
      report.problems.push_back(error.what());
    }
  };
  noting([&] {
    report.path = path;
    report.path = checkpoint_at(path);
    static_cast<Checkpoint&>(report) = from_manifest(read_manifest(report.path), report.path);
  });
  for (const StoredFile& file : report.files) {
    noting([&] {
      require_intact(report.path, file);
      require_datasets(report, file);
    });
  }
  return report;
}

}  // namespace switchyard
