#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/box.h"
#include "checkpoint/digest.h"

namespace switchyard {

// Everything of a run that is not a tensor. Holds no times and no absolute paths: the same state gives the same bytes.
struct TrainingState {
  std::int64_t step = 0, tokens = 0, optimizer_step = 0;
  std::uint64_t seed = 0;          // the generator's whole state, as Philox is counter based
  std::int64_t data_position = 0;  // samples drawn
  std::string configuration;       // the resolved YAML
  std::string tokenizer, tokenizer_sha256, code_version;
  int world_size = 1;
  std::string layout;  // for people; loading does not depend on it
  // Of routers: what the balance loss's coefficient is multiplied with, and how long alarms have counted, by their
  // name.
  double balance_scale = 1;
  std::map<std::string, std::int64_t> alarm_streaks{};

  bool operator==(const TrainingState&) const = default;
};

struct StoredSlice {
  std::string file, dataset;  // "rank-00000.h5", "/tensors/model.norm.weight"
  Box box;
};

struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::vector<StoredSlice> slices;  // hold each element exactly once
  std::optional<Digest> digest;     // of the tensor as it was in memory; version 1 has none
};

struct StoredFile {
  std::string name;
  std::int64_t bytes = 0;
  std::string sha256;
};

// A checkpoint's directory as its manifest describes it.
struct Checkpoint {
  std::filesystem::path path;
  TrainingState state;
  std::vector<StoredTensor> tensors;  // by name
  std::vector<StoredFile> files;      // every .h5 file of the directory
};

// Version 1 has no digests. What is read is 1 and 2, what is written 2.
inline constexpr int kCheckpointVersion = 2, kOldestCheckpointVersion = 1;

// manifest.json: JSON with one line a file and a tensor.
std::string to_manifest(const Checkpoint& checkpoint);
// The checkpoint at `path`, or Error (Fault::checkpoint): a format or version that this program does not read, a field
// that is missing or of another type, names that lead out of the directory, slices that do not partition their tensor.
Checkpoint from_manifest(const std::string& manifest, const std::filesystem::path& path);

// SHA256SUMS, for `sha256sum -c`: every .h5 file, and last the manifest itself.
std::string to_sums(const Checkpoint& checkpoint, const std::string& manifest);
// The text of manifest.json of the directory, once it and SHA256SUMS bear each other out.
std::string read_manifest(const std::filesystem::path& path);

// What one rank holds and wrote, as text for the rank that merges them; all must agree on a tensor's type and shape.
std::string to_text(const StoredFile& file, const std::map<std::string, StoredTensor>& held);
void merge(Checkpoint& checkpoint, const std::vector<std::string>& texts_of_ranks);

}  // namespace switchyard
