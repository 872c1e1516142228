#include <algorithm>
#include <map>
#include <numeric>

#include "checkpoint/agreement.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/directory.h"
#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"
#include "files/sha256.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

bool is_plain_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

void check(const LogicalTensor& tensor) {
  SY_CHECK(is_plain_name(tensor.name), "a tensor is called '", tensor.name, "'");
  SY_CHECK(tensor.local, tensor.name, ": an empty tensor");
  SY_CHECK(tensor.global_shape.rank() >= 1 && tensor.local.shape().rank() == tensor.global_shape.rank(), tensor.name,
           ": slice ", tensor.local.shape(), " of ", tensor.global_shape);
}

std::int64_t bytes_written(const std::vector<LogicalTensor>& tensors) {
  std::int64_t bytes = 0;
  for (const LogicalTensor& tensor : tensors) {
    check(tensor);
    if (tensor.writer) bytes += static_cast<std::int64_t>(tensor.local.size_in_bytes());
  }
  return bytes;
}

// What is on the disk under this name, as the manifest lists it. The bytes are read back, so that the hash is of what a
// later reader gets.
StoredFile stored(const fs::path& dir, const std::string& name) {
  return {name, size_of_file(dir / name), sha256_of_file(dir / name, Fault::checkpoint)};
}

// This rank's file: one dataset a slice. Returns it as text for the manifest, with every tensor that the rank holds, so
// that one which nobody writes is noticed.
std::string write_slices(const fs::path& dir, int rank, const std::vector<LogicalTensor>& tensors) {
  const std::string digits = std::to_string(rank);
  const std::string name = "rank-" + std::string(5 - std::min<std::size_t>(5, digits.size()), '0') + digits + ".h5";
  std::map<std::string, StoredTensor> held;
  Hdf5File file = Hdf5File::create(dir / name);
  for (const LogicalTensor& tensor : tensors) {
    StoredTensor& stored =
        held.try_emplace(tensor.name,
                         StoredTensor{tensor.name, tensor.local.dtype(), tensor.global_shape, {}, Digest{}})
            .first->second;
    SY_CHECK(stored.dtype == tensor.local.dtype() && stored.shape == tensor.global_shape, tensor.name, " is ",
             stored.dtype, ' ', stored.shape, " in one slice and ", tensor.local.dtype(), ' ', tensor.global_shape,
             " in another");
    if (!tensor.writer || tensor.local.numel() == 0) continue;
    stored.slices.push_back(
        {name, dataset_name(tensor.name, stored.slices.size()), {tensor.origin, tensor.local.shape()}});
    const Tensor host = to_device(tensor.local, Device{});
    *stored.digest += digest_of(host, stored.slices.back().box, tensor.global_shape);
    file.write(stored.slices.back(), host, tensor.global_shape);
  }
  file.close();
  sync_path(dir / name);
  return to_text(stored(dir, name), held);
}

// Rank 0's part, once every slice is on the disk: whatever makes the directory a checkpoint.
void complete(const fs::path& dir, Checkpoint& checkpoint) {
  const std::string name = "checkpoint.h5";
  Hdf5File file = Hdf5File::create(dir / name);
  for (const StoredTensor& tensor : checkpoint.tensors) file.write_virtual(tensor);
  file.close();
  sync_path(dir / name);
  checkpoint.files.push_back(stored(dir, name));
  const std::string manifest = to_manifest(checkpoint);
  write_text(dir / "manifest.json", manifest);
  write_text(dir / "SHA256SUMS", to_sums(checkpoint, manifest));
  sync_path(dir);
}

// Gives the complete directory its name. A checkpoint of that name stands aside until then: at every moment one of the
// two can be found.
void publish(const fs::path& complete, const fs::path& final, const SaveObserver& at) {
  const fs::path dir = final.parent_path(), aside = dir / (".old-" + final.filename().string());
  const bool replaces = fs::exists(final);
  if (replaces) rename_path(final, aside);
  at(SaveStage::set_aside);
  rename_path(complete, final);
  sync_path(dir);
  at(SaveStage::published);
  point_latest(final);
  at(SaveStage::pointed);
  if (replaces) discard(aside);
}

void prune(const fs::path& dir, std::int64_t step, int keep) {
  for (const auto& [older, path] : published_in(dir))
    if (older <= step && keep-- <= 0) discard(path);
}

void prepare(const fs::path& dir, const fs::path& temporary, std::int64_t bytes) {
  if (!fs::exists(dir)) {
    fs::create_directories(dir);
    sync_path(fs::absolute(dir).lexically_normal().parent_path());
  }
  clear_leftovers(dir);
  require_space(dir, bytes + bytes / 20 + (1 << 20));
  fs::create_directory(temporary);
}

}  // namespace

fs::path save_checkpoint(const fs::path& dir, const std::vector<LogicalTensor>& tensors, const TrainingState& state,
                         ProcessGroup& world, int keep, const SaveObserver& observer) {
  const fs::path final = dir / step_name(state.step), temporary = dir / (".tmp-" + step_name(state.step));
  const auto at = [&](SaveStage stage) {
    if (observer) observer(stage);
  };
  const auto bytes = gather_or_fail(world, [&] {
    SY_CHECK(keep >= 1 && state.step >= 0, "cannot keep ", keep, " checkpoints of step ", state.step);
    return std::to_string(bytes_written(tensors));
  });
  try {
    root_or_fail(world, [&] {
      prepare(dir, temporary,
              std::accumulate(bytes.begin(), bytes.end(), std::int64_t{},
                              [](auto sum, const auto& mine) { return sum + std::stoll(mine); }));
      at(SaveStage::begun);
      return "";
    });
    const auto parts = gather_or_fail(world, [&] {
      SY_REQUIRE(fs::is_directory(temporary), Fault::checkpoint, temporary.string(),
                 ": this rank does not see it; checkpoints need a file system that all ranks share");
      const std::string part = write_slices(temporary, world.rank(), tensors);
      at(SaveStage::written);
      return part;
    });
    root_or_fail(world, [&] {
      Checkpoint checkpoint{final, state, {}, {}};
      merge(checkpoint, parts);
      complete(temporary, checkpoint);
      at(SaveStage::complete);
      publish(temporary, final, at);
      prune(dir, state.step, keep);
      at(SaveStage::pruned);
      return "";
    });
  } catch (const Error&) {  // the same on every rank; makes room on a full disk
    std::error_code ignored;
    if (world.rank() == 0) fs::remove_all(temporary, ignored);
    throw;
  }
  return final;
}

}  // namespace switchyard
