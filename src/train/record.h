#pragma once

#include <filesystem>

#include "train/restore.h"

namespace switchyard {

// What the router of one MoE block of the model, counted from 0, went by.
struct RecordedBlock {
  std::int64_t block = 0;
  Tensor logits_TE;  // f32, with what jitter and noise there was
  Tensor bias_E;     // f32; empty where there is none
};

// Training steps as routers see them: all there is to route their batches again.
struct Record {
  Config config;
  TrainingState state;  // before the first of these steps
  std::int64_t steps = 0;
  Tensor token_T{};  // i32: all steps' global batches
  std::vector<RecordedBlock> blocks{};
};

// Forward of the batches that training would take next, `steps` of them, as training runs it (capacity, jitter, noise),
// with the weights as they are. Saves what was recorded as a checkpoint in `dir`, which is new: it loads on any number
// of ranks, and `switchyard verify` checks it. Every rank calls. Error (Fault::usage) where there are no logits or the
// ranks do not divide the global batch.
void record_routing(Restored& trained, std::int64_t steps, const std::filesystem::path& dir, ProcessGroup& world);

// What record_routing saved there, on the host.
Record load_record(const std::filesystem::path& dir, ProcessGroup& world);

}  // namespace switchyard
