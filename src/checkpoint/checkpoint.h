#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "dist/process_group.h"

namespace switchyard {

// A directory of checkpoints, on a file system that every rank sees:
//   step-00000500/rank-00000.h5 …   the slices that each rank wrote
//   step-00000500/checkpoint.h5     shows each tensor whole, to h5py and h5dump, without holding it
//   step-00000500/manifest.json     what is where, and the state of the run
//   step-00000500/SHA256SUMS        of all of these
//   latest                          "step-00000500" and the SHA-256 of its SHA256SUMS, a line each
// Every call below is collective, and a failure on any rank is the same Error (Fault::checkpoint) on all.

// A tensor of the run by the name that it has on every layout, and a slice of it that this rank holds. A rank lists as
// many slices of one name as it holds, none or hundreds, on any axes; `local` may be a view of a larger buffer. The
// slices that have a writer hold each element of the tensor once: where several ranks hold the same one, exactly one of
// them is its writer. Loading ignores `writer`, and its slices may overlap. f32, i32, i64, u16 or u8, of one dimension
// or more.
struct LogicalTensor {
  std::string name;  // letters, digits, '.', '_' and '-'
  Tensor local;      // of the slice's shape
  Shape global_shape;
  Origin origin{};
  bool writer = true;
};

// The moments of a save, in this order; `written` on every rank, by whichever thread writes, the others on rank 0.
// Tests crash and fail there.
enum class SaveStage { begun, written, complete, set_aside, published, pointed, pruned };
using SaveObserver = std::function<void(SaveStage)>;

// Saves DIR/step-N (saver.h can do so in the background), points `latest` at it, then deletes all but the newest `keep`
// of the checkpoints up to step N (later ones, left from before a rewind, stay until they are replaced). A crash or a
// full disk at any moment leaves every earlier checkpoint whole. Returns the new checkpoint's directory.
std::filesystem::path save_checkpoint(const std::filesystem::path& dir, const std::vector<LogicalTensor>& tensors,
                                      const TrainingState& state, ProcessGroup& world, int keep,
                                      const SaveObserver& observer = {});

// A checkpoint whose every hash is right, and why others were refused before it.
struct Found : Checkpoint {
  std::vector<std::string> warnings;
  std::vector<std::string> damaged;  // the names of those others
};
// The one that `latest` names, else the newest good one. Nothing where there are none; Error where none is good.
std::optional<Found> find_checkpoint(const std::filesystem::path& dir, ProcessGroup& world);

// What to do with tensors of the checkpoint that no rank asks for.
enum class Unread { refuse, allow };

// Fills every rank's slices, whatever layout they were saved from, after checking the hash of every file. Missing or
// further names and other shapes or types are refused, up to five of each named.
TrainingState load_checkpoint(const std::filesystem::path& path, std::vector<LogicalTensor>& into, ProcessGroup& world,
                              Unread unread = Unread::refuse);
// The same without checking the hashes again.
TrainingState load_checkpoint(const Found& found, std::vector<LogicalTensor>& into, ProcessGroup& world,
                              Unread unread = Unread::refuse);

// What is in a checkpoint, for people; `path` may also be a directory of checkpoints, which stands for its latest.
struct CheckpointReport : Checkpoint {
  std::vector<std::string> problems;
};
// Reads only the manifest; refuses a damaged one.
CheckpointReport inspect_checkpoint(const std::filesystem::path& path);

struct Verified : CheckpointReport {  // its tensors have the digests of what the files hold, unless those are damaged
  bool had_digests = true;            // to compare these with; checkpoints of version 1 have none
};
// Reads and checks every byte; damage is in `problems`, never thrown.
Verified verify_checkpoint(const std::filesystem::path& path);

// One digest of all names, types, shapes and digests; the same for the same tensors, whatever layout saved them.
// SHA-256 of a line "NAME DTYPE SHAPE DIGEST" for each tensor, in order of names, the shape as (4, 2). Each has its
// digest.
std::string digest_of(const std::vector<StoredTensor>& tensors);
// What tells the tensors of two checkpoints apart, a line each; a tensor without a digest is not compared further.
std::vector<std::string> differences(const Checkpoint& a, const Checkpoint& b);

}  // namespace switchyard
