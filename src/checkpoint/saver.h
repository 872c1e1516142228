#pragma once

#include <filesystem>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace switchyard {

// How far this rank is with the save in flight: its file is written (or there is no save), it is not yet, or it cannot
// be. In the order in which one rank's answer outweighs another's.
enum class SaveProgress { written, writing, failed };

struct SaverOptions {
  std::filesystem::path dir{};  // of checkpoints
  int keep = 1;                 // as in save_checkpoint
  // Names of checkpoints there that are known to be no good: they do not count in `keep`.
  std::set<std::string> damaged{};
  SaveObserver observer{};
};

// Saves the states of one run, one after the other, at once or in the background: then the step waits only while this
// rank's slices are copied to host memory, and at most one save is in flight. A thread writes, hashes and syncs this
// rank's own file; it never communicates. What needs all ranks comes in finish(). The bytes on the disk are the same
// either way, and so is what a crash leaves: until finish() is done there is only a hidden directory, which the next
// save clears away.
//
// All calls but progress() are collective, and a failure on any rank is the same Error on all, Fault::checkpoint where
// it is the disk's; the save in flight is given up then, its files are removed, and another may be started.
class Saver {
 public:
  Saver(SaverOptions options, ProcessGroup& world);
  // Gives up a save in flight, by itself: for the end by an error that the other ranks may not know of.
  ~Saver();

  // Takes and touches the memory for the copies of these tensors, so that no start() waits for the system's. It is kept
  // from save to save and counted as Memory::checkpoint.
  void reserve(const std::vector<LogicalTensor>& tensors);

  // Copies, and writes in the background. Finishes the save in flight before.
  void start(const std::vector<LogicalTensor>& tensors, const TrainingState& state);
  // Of this rank; costs nothing. Once no rank is `writing`, or one has `failed`, finish() is due and does not wait
  // long.
  SaveProgress progress() const;
  // Waits for every rank's file and publishes the checkpoint. Does nothing where no save is in flight.
  void finish();

  // All of it at once, without copies. Returns the new checkpoint's directory.
  std::filesystem::path save(const std::vector<LogicalTensor>& tensors, const TrainingState& state);

 private:
  struct InFlight;

  void begin(const std::vector<LogicalTensor>& tensors, const TrainingState& state, std::launch when);
  std::vector<LogicalTensor> copied(const std::vector<LogicalTensor>& tensors);
  void publish_parts(const std::vector<std::string>& parts);
  void give_up();
  void at(SaveStage stage) const;

  SaverOptions options_;
  ProcessGroup& world_;
  std::vector<Tensor> copies_;        // of the slices that this rank writes, in their order
  std::future<void> emptying_;        // deletes what was pruned; rank 0's
  std::unique_ptr<InFlight> flight_;  // none, or on every rank
};

}  // namespace switchyard
