#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <fstream>

#include "checkpoint/agreement.h"
#include "data/token_file_info.h"
#include "dist/consistency.h"
#include "train/config_writer.h"
#include "train/evaluate.h"
#include "train/messages.h"
#include "train/setup.h"
#include "train/state.h"

namespace switchyard {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

std::filesystem::path checkpoint_dir(const std::filesystem::path& run_dir) { return run_dir / "checkpoints"; }

Trainer::Trainer(const Config& config, ProcessGroup& world, ProgressStyle progress)
    : config_(config),
      world_(world),
      style_(world.rank() == 0 ? progress : ProgressStyle::none),
      learner_(config, world),
      tokenizer_(tokenizer_of(config.data)),
      alarms_(config.health) {
  if (!config.data.valid.empty())
    valid_.emplace(config.data.valid, config.train.seq_len, config.model.vocab_size,
                   config.train.eval_batches * config.train.global_batch);
  require_same_run(text(write_config(config_), learner_.loader().fingerprint()), learner_.model().parameters(),
                   learner_.mesh());
  make_run_dir();
  const std::optional<Found> found = resume();
  SaverOptions saving{.dir = checkpoint_dir(config.run.dir), .keep = static_cast<int>(config.checkpoint.keep)};
  if (found) saving.damaged = {found->damaged.begin(), found->damaged.end()};
  saver_.emplace(saving, world);
}

// Rank 0 makes the directory; what stands in its way is told to all.
void Trainer::make_run_dir() {
  std::error_code failure;
  if (world_.rank() == 0) std::filesystem::create_directories(config_.run.dir, failure);
  const std::string reason = broadcast_text(world_, failure ? failure.message() : "", 0);
  SY_REQUIRE(reason.empty(), Fault::usage, "cannot make run.dir = ", config_.run.dir, ": ", reason);
}

// From the newest good checkpoint, if there is one.
std::optional<Found> Trainer::resume() {
  const std::optional<Found> found = find_checkpoint(checkpoint_dir(config_.run.dir), world_);
  if (!found) return found;
  for (const std::string& warning : found->warnings) warn(world_, warning);

  require_same_optimizer(*found, config_.optim);
  std::vector<LogicalTensor> tensors = learner_.tensors();
  const TrainingState state = load_checkpoint(*found, tensors, world_);
  SY_REQUIRE(state.data_position == state.step * config_.train.global_batch, Fault::usage, found->path.string(),
             " has drawn ", state.data_position, " samples in ", state.step,
             " steps, which train.global_batch = ", config_.train.global_batch,
             " does not give; use the same, or another run.dir");
  learner_.tensors_changed();
  step_ = state.step;
  learner_.optimizer().set_steps(state.optimizer_step);
  learner_.set_balance_scale(static_cast<float>(std::min(state.balance_scale, config_.health.raise_to)));
  alarms_.resume(state.alarm_streaks);
  Progress(style_, 0, 0, 1).say(text("resumed from ", found->path.string(), " at step ", step_));
  return found;
}

TrainingState Trainer::state() {
  return {.step = step_,
          .tokens = step_ * config_.train.global_batch * config_.train.seq_len,
          .optimizer_step = learner_.optimizer().steps(),
          .seed = config_.run.seed,
          .data_position = step_ * config_.train.global_batch,
          .configuration = write_config(config_),
          .tokenizer = tokenizer_.name,
          .tokenizer_sha256 = tokenizer_.sha256,
          .code_version = program_version(),
          .world_size = world_.size(),
          .layout = describe(learner_.mesh().layout),
          .balance_scale = learner_.balance_scale(),
          .alarm_streaks = alarms_.streaks()};
}

// What ranks with other cuts of a parameter keep too, all that see different tokens do.
void Trainer::check_replicas() {
  Parameters copies = learner_.model().parameters();
  for (const OptimizerState& state : learner_.optimizer().states())
    if (!state.is_cut)
      copies.push_back({.name = state.name,
                        .variable = Variable(state.value),
                        .global_shape = state.global_shape,
                        .replicas = state.replicas == Replicas::data ? Replicas::tokens : state.replicas});
  require_same_replicas(copies, step_, learner_.mesh());
}

void Trainer::save() { saver_->save(learner_.tensors(), state()); }

StepMetrics Trainer::step() {
  const auto begin = std::chrono::steady_clock::now();
  const std::int64_t tokens = config_.train.global_batch * config_.train.seq_len;
  StepMetrics metrics = learner_.step(step_);
  metrics.step = ++step_;
  metrics.tokens = step_ * tokens;
  metrics.tokens_per_second = static_cast<double>(tokens) / seconds_since(begin);
  metrics.alarms = alarms_.look_at(metrics.router);
  if (std::ranges::any_of(metrics.alarms, [](const Alarm& a) { return a.action == AlarmAction::raise_balance; }))
    raise_balance();
  return metrics;
}

// Once a step, however many blocks ask for it.
void Trainer::raise_balance() {
  const double raised = learner_.balance_scale() * config_.health.raise_by;
  learner_.set_balance_scale(static_cast<float>(std::min(raised, config_.health.raise_to)));
}

double Trainer::evaluate() {
  return switchyard::evaluate(learner_.pipeline(), *valid_, config_.train.micro_batch, config_.train.seq_len,
                              learner_.mesh())
      .loss;
}

Outcome Trainer::run() {
  Progress progress(style_, step_, config_.train.steps, config_.train.log_every);
  if (step_ >= config_.train.steps) {
    progress.say(text("done already: ", step_, " of ", config_.train.steps, " steps"));
    return Outcome::finished;
  }
  try {
    return train(progress);
  } catch (const Error& error) {
    if (error.fault() == Fault::numeric) saver_->finish();  // every rank has this error
    throw;
  }
}

Outcome Trainer::train(Progress& progress) {
  if (config_.checkpoint.async) saver_->reserve(learner_.tensors());
  open_logs();
  check_replicas();
  while (step_ < config_.train.steps) {
    StepMetrics metrics = step();
    if (config_.parallel.check_every > 0 && step_ % config_.parallel.check_every == 0) check_replicas();
    if (valid_ && is_due(config_.train.eval_every)) metrics.val_loss = evaluate();
    write_logs(metrics);
    progress.show(metrics);
    const Alarm* stops = tell_alarms(metrics.alarms, progress);
    const Request request = save_if_due(stops ? Request::stop : Request::none);
    if (step_ == config_.train.steps) {
      if (metrics.val_loss)
        progress.say(text("held-out loss ", *metrics.val_loss, " nats a token after ", step_, " steps"));
    } else if (stops) {
      tell_error(world_, text("an alarm stopped the run at step ", step_, ", saved: ", to_text(*stops),
                              "; the same command goes on from there"));
      return Outcome::alarmed;
    } else if (request == Request::stop) {
      progress.say(text("stopped by a signal at step ", step_, ", saved"));
      return Outcome::stopped;
    }
  }
  return Outcome::finished;
}

// What keeps rank 0 from writing is told to all.
void Trainer::open_logs() {
  const std::filesystem::path dir = config_.run.dir;
  root_or_fail(world_, [&] {
    const std::filesystem::path path = dir / "config.yaml";
    SY_REQUIRE(std::ofstream(path) << write_config(config_) << std::flush, Fault::data, "cannot write ", path.string(),
               "; is the disk full?");
    log_.emplace(dir / "metrics.jsonl", step_);
    return "";
  });
  if (config_.train.tensorboard && world_.rank() == 0) charts_.emplace(dir, step_ + 1, world_);
}

void Trainer::write_logs(const StepMetrics& metrics) {
  try {
    root_or_fail(world_, [&] {
      log_->write(metrics);
      return "";
    });
  } catch (const Error&) {
    saver_->finish();  // every rank has this error
    throw;
  }
  if (charts_) charts_->write(metrics);
}

// The last that stops the run, or none.
const Alarm* Trainer::tell_alarms(const std::vector<Alarm>& alarms, Progress& progress) const {
  const Alarm* stops = nullptr;
  for (const Alarm& alarm : alarms) {
    progress.say(text("alarm at step ", step_, ": ", to_text(alarm),
                      alarm.action == AlarmAction::raise_balance
                          ? text("; the balance coefficients are times ", learner_.balance_scale())
                          : ""));
    if (alarm.action == AlarmAction::stop) stops = &alarm;
  }
  return stops;
}

// Publishes what was written in the background, and saves where that is due or wanted. Returns the stronger of what
// signals ask for and the run's own request.
Request Trainer::save_if_due(Request own) {
  const auto [heard, saving] = agree(world_, saver_->progress());
  if (saving != SaveProgress::writing) saver_->finish();
  const Request request = std::max(heard, own);
  if (request == Request::none && !is_due(config_.checkpoint.every)) return request;
  const bool is_last = request == Request::stop || step_ == config_.train.steps;
  if (config_.checkpoint.async && !is_last)
    saver_->start(learner_.tensors(), state());
  else
    save();
  return request;
}

}  // namespace switchyard
