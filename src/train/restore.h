#pragma once

#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "model/transformer.h"
#include "train/config.h"

namespace switchyard {

// A trained model, without its optimizer, on as many ranks as there are now.
struct Restored {
  Config config;  // resolved for these ranks
  TrainingState state;
  std::filesystem::path path;
  Device device;
  std::unique_ptr<ProcessGroup> world;  // carries the device's tensors
  std::unique_ptr<Mesh> mesh;
  std::unique_ptr<Transformer> model;
};

// The checkpoint that a path means, its hashes checked: itself, or the newest good one of a run's directory or a
// directory of checkpoints. Warns of those that were refused.
Found find_trained(const std::filesystem::path& path, ProcessGroup& world);

// The model of that checkpoint. The experts are spread over as many of the ranks as divide them; an override of
// `parallel` is an Error (Fault::usage).
Restored restore(const std::filesystem::path& path, const std::vector<std::string>& overrides, ProcessGroup& world);

// RUN of RUN/checkpoints/step-N. Error (Fault::usage) for a checkpoint that lies elsewhere, as --out is then to be
// given.
std::filesystem::path run_of(const std::filesystem::path& checkpoint);

}  // namespace switchyard
