#include "dist/exchange.h"

#include <numeric>
#include <optional>

namespace switchyard {
namespace {

std::int64_t sum(const std::vector<int>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{});
}

}  // namespace

class Trip {
 public:
  Trip(std::vector<Exchange> parts, ProcessGroup& group)
      : parts_(std::move(parts)), group_(group), first_{0}, flights_(parts_.size()) {
    for (const Exchange& part : parts_) first_.push_back(first_.back() + sum(part.send));
  }

  std::size_t parts() const { return parts_.size(); }
  Shape home_shape(const Tensor& rows) const { return rows.shape().with(0, first_.back()); }

  // Returns the part's rows to be, away.
  Tensor leave_home(std::size_t part, const Tensor& home_ND) {
    Tensor away = Tensor::empty(home_ND.shape().with(0, sum(parts_[part].recv)), home_ND.dtype(), home_ND.device());
    start(part, away, parts_[part], home_ND.rows(first_[part], first_[part + 1]));
    return away;
  }
  void return_home(std::size_t part, const Tensor& home_ND, const Tensor& away) {
    start(part, home_ND.rows(first_[part], first_[part + 1]), parts_[part].reversed(), away);
  }
  void await(std::size_t part) {
    SY_CHECK(flights_[part], "exchange: part ", part, " is not on its way");
    if (const Wait& wait = flights_[part]->wait) wait();
    flights_[part].reset();
  }

  Tensor gradient_ND;  // on its way home

 private:
  // Both tensors live as long as the rows are under way.
  struct Flight {
    Tensor out, in;
    Wait wait;
  };

  void start(std::size_t part, Tensor out, const Exchange& rows, const Tensor& in) {
    SY_CHECK(!flights_[part], "exchange: part ", part, " is on its way already");
    Wait wait = group_.start_all_to_all(out, rows.recv, in, rows.send);
    flights_[part] = {.out = std::move(out), .in = in, .wait = std::move(wait)};
  }

  std::vector<Exchange> parts_;
  ProcessGroup& group_;
  std::vector<std::int64_t> first_;  // row at home of each part, and the end
  std::vector<std::optional<Flight>> flights_;
};

Outbound::Outbound(const Variable& x_ND, std::vector<Exchange> parts, ProcessGroup& group)
    : trip_(std::make_shared<Trip>(std::move(parts), group)), to_arrive_(trip_->parts()) {
  SY_CHECK(x_ND.shape() == trip_->home_shape(x_ND.value()), "exchange: x is ", x_ND.shape(), ", its parts are ",
           trip_->home_shape(x_ND.value()));
  for (std::size_t part = 0; part < trip_->parts(); ++part) away_.push_back(trip_->leave_home(part, x_ND.value()));
  left_ND_ = record("leave_home", x_ND.value(), {x_ND}, [trip = trip_](const Tensor& dx_ND) -> Grads {
    trip->gradient_ND = {};
    for (std::size_t part = 0; part < trip->parts(); ++part) trip->await(part);
    return {dx_ND};
  });
}

// One gradient of all parts, which comes with the first of them.
Variable Outbound::arrive(std::size_t part) {
  trip_->await(part);
  const Variable left_ND = --to_arrive_ > 0 ? left_ND_ : std::exchange(left_ND_, {});
  return record("arrive", std::exchange(away_[part], {}), {left_ND}, [trip = trip_, part](const Tensor& dy) -> Grads {
    const bool is_first = !trip->gradient_ND;
    if (is_first) trip->gradient_ND = Tensor::empty(trip->home_shape(dy), dy.dtype(), dy.device());
    trip->return_home(part, trip->gradient_ND, dy);
    return {is_first ? trip->gradient_ND : Tensor{}};
  });
}

Homebound::Homebound(std::vector<Exchange> parts, ProcessGroup& group)
    : trip_(std::make_shared<Trip>(std::move(parts), group)), left_(trip_->parts()) {}

void Homebound::leave(std::size_t part, const Variable& x) {
  if (!home_ND_) home_ND_ = Tensor::empty(trip_->home_shape(x.value()), x.dtype(), x.device());
  trip_->return_home(part, home_ND_, x.value());
  left_[part] = record("leave", x.value(), {x}, [trip = trip_, part](const Tensor& dx) -> Grads {
    trip->await(part);
    return {dx};
  });
}

Variable Homebound::arrive() {
  for (std::size_t part = 0; part < trip_->parts(); ++part) trip_->await(part);
  return record("arrive_home", std::exchange(home_ND_, {}), std::move(left_),
                [trip = trip_](const Tensor& dy) -> Grads {
                  Grads grads(trip->parts());
                  for (std::size_t part = grads.size(); part-- > 0;) grads[part] = trip->leave_home(part, dy);
                  return grads;
                });
}

}  // namespace switchyard
