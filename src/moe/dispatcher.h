#pragma once

#include <memory>
#include <vector>

#include "dist/exchange.h"
#include "moe/routing.h"

namespace switchyard {

// How received rows, which come rank by rank, lie by expert. i32; the permutations are empty where they do already.
struct ExpertOrder {
  Tensor offsets_e1;  // rows of local expert i are [offsets[i], offsets[i + 1]); in host memory
  Tensor to_expert_R, from_expert_R;
};

// Rows of one part in expert order, ready for the experts of this rank.
struct ExpertRows {
  Variable rows_RD;
  Tensor offsets_e1;
  std::int64_t rows_each = 0;  // of every local expert where that is known beforehand, else 0
  Tensor id_R, order_R;        // row r is the choice that its sender calls id[order[r]]; empty where nobody asked
};

// Tokens on their way to their experts and home again. All parts have left; each part arrives when it is asked for, and
// what the experts made of it leaves.
struct Dispatched {
  std::vector<ExpertOrder> orders;  // by part
  std::int64_t rows_each = 0;
  std::vector<Tensor> ids;  // by part, as they came
  Outbound out;
  Homebound home;
  Tensor copied_N, copies_NC;  // which row each copy is of, and the copies of each row; empty where there is one each

  std::size_t parts() const { return orders.size(); }
  ExpertRows arrive(std::size_t part);
  void leave(std::size_t part, const Variable& y_RD);
};

// Moves tokens to their experts and back. dispatch and combine are each other's transpose.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  // id_TK, i32, names the choices, and travels with their rows; it may be empty.
  virtual Dispatched dispatch(const Variable& x_TD, const Routing& routing, const Tensor& id_TK = {}) = 0;
  // After all parts have left.
  virtual Variable combine(Dispatched& sent, const Routing& routing) = 0;
};

// Experts spread over `group`, a contiguous block of them on every `cut` neighbouring ranks, each of which has a part
// of their width: a copy of a row goes to each of these, and what comes back is summed. Rows travel by all-to-all. Only
// rows that were kept travel, or, where the routing is padded, all that experts own: then every rank must bring as many
// tokens, and the host reads nothing. A group of one is the local case. Every rank's routing has as many parts.
std::unique_ptr<Dispatcher> make_dispatcher(std::int64_t experts, ProcessGroup& group, int cut = 1);

}  // namespace switchyard
