#pragma once

#include <filesystem>

#include "checkpoint/saver.h"
#include "data/eval_loader.h"
#include "data/tokenizer.h"
#include "train/learner.h"
#include "train/progress.h"
#include "train/signals.h"
#include "train/tensorboard.h"

namespace switchyard {

enum class Outcome { finished, stopped, alarmed };

// One run of a learner, from the newest checkpoint in the run's directory (or from step 0) to the last step. The same
// calls on every rank.
class Trainer {
 public:
  // The configuration is resolved. The world outlives the trainer.
  Trainer(const Config& config, ProcessGroup& world, ProgressStyle progress);

  // Trains until the last step, or until a signal or an alarm asks to stop, of which an alarm's is told as an error;
  // saves before it returns. Throws as step() does, and Error (Fault::data) on every rank where metrics.jsonl cannot be
  // written: what was being saved is then saved.
  Outcome run();

  // One optimizer step on the global batch of this step; moves on to the next. An alarm that it fires has raised the
  // balance loss's coefficient when this returns; to stop is left to the caller. Throws Error (Fault::numeric), with
  // nothing updated, when the loss or a gradient is not finite.
  StepMetrics step();

  // Mean cross-entropy of the validation data, nats a token, no row dropped.
  double evaluate();

  void save();  // and waits until it is done

  std::int64_t steps_done() const { return step_; }
  Learner& learner() { return learner_; }

 private:
  void make_run_dir();
  std::optional<Found> resume();
  void check_replicas();
  void raise_balance();
  Outcome train(Progress& progress);
  void open_logs();
  void write_logs(const StepMetrics& metrics);
  const Alarm* tell_alarms(const std::vector<Alarm>& alarms, Progress& progress) const;
  Request save_if_due(Request own);
  TrainingState state();
  bool is_due(std::int64_t every) const { return step_ == config_.train.steps || (every > 0 && step_ % every == 0); }

  Config config_;
  ProcessGroup& world_;
  ProgressStyle style_;
  Learner learner_;
  TokenizerId tokenizer_;  // of the data
  std::optional<EvalLoader> valid_;
  std::optional<Saver> saver_;
  Alarms alarms_;
  std::optional<MetricsLog> log_;  // rank 0's, as are the charts
  std::optional<Charts> charts_;
  std::int64_t step_ = 0;  // done
};

// DIR/checkpoints of a run.
std::filesystem::path checkpoint_dir(const std::filesystem::path& run_dir);

}  // namespace switchyard
