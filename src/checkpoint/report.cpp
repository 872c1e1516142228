#include <algorithm>
#include <map>

#include "checkpoint/checkpoint.h"
#include "checkpoint/directory.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/integrity.h"
#include "files/sha256.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

fs::path checkpoint_at(const fs::path& path) {
  if (fs::exists(path / "manifest.json")) return path;
  const Candidates candidates = candidates_in(path);
  return candidates.paths.empty() ? path : candidates.paths.front();
}

// Of a slice in a file, read some rows of its first axis at a time.
Digest digest_of_stored(Hdf5File& file, const StoredSlice& slice, const StoredTensor& tensor) {
  constexpr std::int64_t kBlock = 1 << 22;  // elements
  const std::int64_t rows = std::max<std::int64_t>(1, kBlock / (slice.box.shape.numel() / slice.box.shape[0]));
  Digest sum;
  for (std::int64_t begin = 0; begin < slice.box.shape[0]; begin += rows) {
    Box part{slice.box.origin, slice.box.shape.with(0, std::min(rows, slice.box.shape[0] - begin))};
    part.origin[0] += begin;
    Tensor block = Tensor::empty(part.shape, tensor.dtype, Device{});
    file.read(slice, part, block, part);
    sum += digest_of(block, part, tensor.shape);
  }
  return sum;
}

// Adds what an intact file holds of each tensor to its digest in `sums`. Its datasets must be as the manifest says.
void add_digests(const Checkpoint& checkpoint, const StoredFile& file, std::vector<Digest>& sums) {
  Hdf5File opened = Hdf5File::open(checkpoint.path / file.name);
  for (std::size_t i = 0; i < sums.size(); ++i)
    for (const StoredSlice& slice : checkpoint.tensors[i].slices)
      if (slice.file == file.name) sums[i] += digest_of_stored(opened, slice, checkpoint.tensors[i]);
}

}  // namespace

CheckpointReport inspect_checkpoint(const fs::path& path) {
  const fs::path at = checkpoint_at(path);
  return {from_manifest(read_manifest(at), at), {}};
}

Verified verify_checkpoint(const fs::path& path) {
  Verified report;
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
  std::vector<Digest> found(report.tensors.size());
  for (const StoredFile& file : report.files) {
    noting([&] {
      require_intact(report.path, file);
      add_digests(report, file, found);
    });
  }
  const bool whole = report.problems.empty();
  for (std::size_t i = 0; i < found.size(); ++i) {
    std::optional<Digest>& digest = report.tensors[i].digest;
    report.had_digests = report.had_digests && digest;
    if (whole && digest && *digest != found[i])
      report.problems.push_back(
          text(report.tensors[i].name, ": its digest is ", to_hex(found[i]), ", the manifest says ", to_hex(*digest)));
    digest = whole ? std::optional(found[i]) : std::nullopt;
  }
  return report;
}

std::string digest_of(const std::vector<StoredTensor>& tensors) {
  std::string lines;
  for (const StoredTensor& tensor : tensors)
    lines += text(tensor.name, ' ', tensor.dtype, ' ', tensor.shape, ' ', to_hex(tensor.digest.value()), '\n');
  return sha256(lines);
}

std::vector<std::string> differences(const Checkpoint& a, const Checkpoint& b) {
  const std::string of_a = a.path.string(), of_b = b.path.string();
  std::map<std::string, const StoredTensor*> others;
  for (const StoredTensor& tensor : b.tensors) others[tensor.name] = &tensor;
  std::vector<std::string> lines;
  for (const StoredTensor& tensor : a.tensors) {
    const auto found = others.find(tensor.name);
    if (found == others.end()) {
      lines.push_back(text(tensor.name, ": not in ", of_b));
      continue;
    }
    const StoredTensor& other = *found->second;
    if (tensor.dtype != other.dtype || tensor.shape != other.shape)
      lines.push_back(text(tensor.name, ": ", tensor.dtype, ' ', tensor.shape, " in ", of_a, ", ", other.dtype, ' ',
                           other.shape, " in ", of_b));
    else if (tensor.digest && other.digest && *tensor.digest != *other.digest)
      lines.push_back(text(tensor.name, ": its elements in ", of_a, " are not those in ", of_b));
    others.erase(found);
  }
  for (const auto& [name, tensor] : others) lines.push_back(text(name, ": not in ", of_a));
  return lines;
}

}  // namespace switchyard
