#pragma once

#include <memory>

#include "dist/collectives.h"
#include "moe/routing.h"

namespace switchyard {

// Rows in expert order, ready for the experts of this rank, and the way home.
struct Dispatched {
  Variable rows_RD;
  Tensor offsets_e1;  // i32 (e + 1): rows of local expert i are [offsets[i], offsets[i + 1])

  // filled by the dispatcher, read by its own combine(); empty where the rows came in expert order
  Tensor to_expert_order_R, from_expert_order_R;  // i32
  Exchange exchange;
};

// Moves tokens to their experts and back. dispatch and combine are each other's transpose.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  virtual Dispatched dispatch(const Variable& x_TD, const Routing& routing) = 0;
  virtual Variable combine(const Variable& y_RD, const Dispatched& sent, const Routing& routing) = 0;
};

// Experts spread over `group`, a contiguous block of them on each rank: rows travel by all-to-all. Only rows that were
// kept travel. A group of one is the local case.
std::unique_ptr<Dispatcher> make_dispatcher(std::int64_t experts, ProcessGroup& group);

}  // namespace switchyard
