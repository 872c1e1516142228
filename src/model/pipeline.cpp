#include "model/pipeline.h"

#include <algorithm>
#include <array>
#include <deque>

#include "autograd/scope.h"

namespace switchyard {
namespace {

// Sends rows to the other rank of a pair and gets rows from it, of this shape each; whoever sends nothing, or nothing
// is wanted from, is left empty. In a group of one nothing happens.
Tensor exchange(ProcessGroup& pair, const Tensor& sent, const Shape& wanted, const Transformer& model) {
  if (pair.size() == 1) return {};
  const Scope scope("pipeline");
  const auto other = static_cast<std::size_t>(1 - pair.rank());
  const Shape none = wanted.with(0, 0);
  const auto rows_of = [&](const Shape& shape) {
    std::array<int, 2> rows{};
    rows[other] = static_cast<int>(shape[0]);
    return rows;
  };
  const Tensor out = sent ? sent : Tensor::empty(none, model.rows(), model.device(), Memory::communication);
  Tensor in = Tensor::empty(wanted, model.rows(), model.device());
  pair.all_to_all(in, rows_of(in.shape()), out, rows_of(out.shape()));
  return in;
}

}  // namespace

Pipeline::Pipeline(const Transformer& model, Mesh& mesh) : model_(model), mesh_(mesh) {
  constexpr float kOne = 1;
  one_ = Tensor::of(std::span<const float>(&kOne, 1), {1}, model.device());
}

Variable Pipeline::received(const Tensor& rows) const { return rows ? Variable(rows, is_recording()) : Variable{}; }

ModelResult Pipeline::forward(const MicroBatch& batch) {
  const Shape rows = model_.stream(batch.pass), none = rows.with(0, 0);
  const Variable in = received(exchange(*mesh_.previous, {}, rows, model_));
  ModelResult result = model_(batch.token_T, batch.target_T, batch.pass, in);
  exchange(*mesh_.next, result.out.value(), none, model_);
  return result;
}

void Pipeline::step(const Step& step) {
  const std::int64_t count = step.micro_batches,
                     ahead = std::min<std::int64_t>(mesh_.stages() - 1 - mesh_.stage(), count);
  std::deque<Flight> flights;
  std::int64_t begun = 0, to_go_back = count;
  ProcessGroup &previous = *mesh_.previous, &next = *mesh_.next;

  MicroBatch batch = step.batch(0);
  const Shape rows = model_.stream(batch.pass), none = rows.with(0, 0);
  // Forward of the batch at hand, and the one after it; gives the rows for the next stage.
  const auto forward = [&](const Tensor& in) {
    Flight flight{.in = received(in), .out = {}};
    const ModelResult result = model_(batch.token_T, batch.target_T, batch.pass, flight.in);
    step.forward(result);
    flight.out = result.out;
    flights.push_back(flight);
    if (++begun < count) batch = step.batch(begun);
    return result.out.value();
  };
  // Backward of the micro-batch that has waited longest; gives the gradient for the stage before.
  const auto backward = [&](const Tensor& dout) {
    if (--to_go_back == 0) step.last_backward();
    Flight flight = std::move(flights.front());
    flights.pop_front();
    flight.out.backward(dout ? dout : one_);
    return flight.in ? flight.in.grad() : Tensor{};
  };

  for (std::int64_t i = 0; i < ahead; ++i) exchange(next, forward(exchange(previous, {}, rows, model_)), none, model_);
  Tensor in = ahead < count ? exchange(previous, {}, rows, model_) : Tensor{};
  for (std::int64_t i = ahead; i < count; ++i) {
    const Tensor out = forward(in);
    const Tensor din = backward(exchange(next, out, rows, model_));
    in = exchange(previous, din, i + 1 < count ? rows : none, model_);
  }
  for (std::int64_t i = 0; i < ahead; ++i) exchange(previous, backward(exchange(next, {}, rows, model_)), none, model_);
}

}  // namespace switchyard
