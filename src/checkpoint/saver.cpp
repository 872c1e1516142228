#include "checkpoint/saver.h"

#include <atomic>
#include <chrono>
#include <numeric>

#include "checkpoint/agreement.h"
#include "checkpoint/directory.h"
#include "checkpoint/publish.h"
#include "checkpoint/rank_file.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::int64_t bytes_written(const std::vector<LogicalTensor>& tensors) {
  std::int64_t bytes = 0;
  for (const LogicalTensor& tensor : tensors) {
    check(tensor);
    if (tensor.writer) bytes += static_cast<std::int64_t>(tensor.local.size_in_bytes());
  }
  return bytes;
}

}  // namespace

struct Saver::InFlight {
  TrainingState state;
  fs::path temporary;
  std::vector<LogicalTensor> tensors;
  std::atomic<bool> given_up = false;
  std::atomic<SaveProgress> progress = SaveProgress::writing;
  std::future<std::string> part;  // last, so that its thread has ended before the rest goes
};

Saver::Saver(SaverOptions options, ProcessGroup& world) : options_(std::move(options)), world_(world) {
  SY_CHECK(options_.keep >= 1, "cannot keep ", options_.keep, " checkpoints");
}

Saver::~Saver() {
  if (flight_) give_up();
}

void Saver::at(SaveStage stage) const {
  if (options_.observer) options_.observer(stage);
}

void Saver::reserve(const std::vector<LogicalTensor>& tensors) {
  all_or_fail(world_, [&] {
    copies_.clear();
    for (const LogicalTensor& tensor : tensors)
      if (tensor.writer)
        copies_.push_back(Tensor::zeros(tensor.local.shape(), tensor.local.dtype(), Device{}, Memory::checkpoint));
  });
}

std::vector<LogicalTensor> Saver::copied(const std::vector<LogicalTensor>& tensors) {
  std::vector<LogicalTensor> all = tensors;
  std::size_t n = 0;
  for (LogicalTensor& tensor : all) {
    if (!tensor.writer) continue;
    if (n == copies_.size()) copies_.emplace_back();
    Tensor& copy = copies_[n++];
    if (!copy || copy.shape() != tensor.local.shape() || copy.dtype() != tensor.local.dtype())
      copy = Tensor::empty(tensor.local.shape(), tensor.local.dtype(), Device{}, Memory::checkpoint);
    kernels(tensor.local.device()).copy(copy, tensor.local);
    tensor.local = copy;
  }
  return all;
}

void Saver::begin(const std::vector<LogicalTensor>& tensors, const TrainingState& state, std::launch when) {
  finish();
  if (emptying_.valid()) emptying_.wait();
  const auto bytes = gather_or_fail(world_, [&] {
    SY_CHECK(state.step >= 0, "a checkpoint of step ", state.step);
    return std::to_string(bytes_written(tensors));
  });
  flight_ = std::make_unique<InFlight>();
  flight_->state = state;
  flight_->temporary = options_.dir / (".tmp-" + step_name(state.step));
  try {
    root_or_fail(world_, [&] {
      prepare(options_.dir, flight_->temporary,
              std::accumulate(bytes.begin(), bytes.end(), std::int64_t{},
                              [](auto sum, const auto& mine) { return sum + std::stoll(mine); }));
      at(SaveStage::begun);
      return "";
    });
    all_or_fail(world_, [&] {
      flight_->tensors = when == std::launch::async ? copied(tensors) : tensors;
      flight_->part = std::async(when, [this, flight = flight_.get(), rank = world_.rank()] {
        try {
          const std::string part = write_rank_file(flight->temporary, rank, flight->tensors, flight->given_up);
          at(SaveStage::written);
          flight->progress = SaveProgress::written;
          return part;
        } catch (...) {
          flight->progress = SaveProgress::failed;
          throw;
        }
      });
    });
  } catch (...) {
    give_up();
    throw;
  }
}

void Saver::start(const std::vector<LogicalTensor>& tensors, const TrainingState& state) {
  begin(tensors, state, std::launch::async);
}

SaveProgress Saver::progress() const { return flight_ ? flight_->progress.load() : SaveProgress::written; }

void Saver::finish() {
  if (!flight_) return;
  try {
    const auto parts = gather_or_fail(world_, [&] { return flight_->part.get(); });
    root_or_fail(world_, [&] {
      publish_parts(parts);
      return "";
    });
  } catch (...) {
    give_up();
    throw;
  }
  flight_.reset();
}

void Saver::publish_parts(const std::vector<std::string>& parts) {
  const std::int64_t step = flight_->state.step;
  Checkpoint checkpoint{options_.dir / step_name(step), flight_->state, {}, {}};
  merge(checkpoint, parts);
  complete(flight_->temporary, checkpoint);
  at(SaveStage::complete);
  options_.damaged.erase(step_name(step));
  publish(flight_->temporary, checkpoint, [&](SaveStage stage) { at(stage); });
  prune(options_.dir, step, options_.keep, options_.damaged);
  emptying_ = std::async(std::launch::async, [dir = options_.dir] { empty_trash(dir); });
  at(SaveStage::pruned);
}

// The first rank removes what may be there, which also makes room on a full disk. Another rank that still writes, as no
// error was agreed on, can leave something; the next save clears it away.
void Saver::give_up() {
  const fs::path temporary = flight_->temporary;
  flight_->given_up = true;
  flight_.reset();
  std::error_code ignored;
  if (world_.rank() == 0) fs::remove_all(temporary, ignored);
}

fs::path Saver::save(const std::vector<LogicalTensor>& tensors, const TrainingState& state) {
  begin(tensors, state, std::launch::deferred);
  finish();
  return options_.dir / step_name(state.step);
}

fs::path save_checkpoint(const fs::path& dir, const std::vector<LogicalTensor>& tensors, const TrainingState& state,
                         ProcessGroup& world, int keep, const SaveObserver& observer) {
  Saver saver({dir, keep, {}, observer}, world);
  return saver.save(tensors, state);
}

}  // namespace switchyard
