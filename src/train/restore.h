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

// `path` is a run's directory, a directory of checkpoints or one checkpoint. The experts are spread over as many of the
// ranks as divide them. Warns of checkpoints that were refused.
Restored restore(const std::filesystem::path& path, const std::vector<std::string>& overrides, ProcessGroup& world);

}  // namespace switchyard
