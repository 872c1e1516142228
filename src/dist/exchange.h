#pragma once

#include <memory>
#include <vector>

#include "autograd/variable.h"
#include "dist/process_group.h"

namespace switchyard {

// How many rows go to, and come from, each rank of the group.
struct Exchange {
  std::vector<int> send, recv;
  Exchange reversed() const { return {recv, send}; }
};

// All-to-alls of rows in parts, each with an exchange of its own: out and home again. At home, the rows of one part lie
// behind those of the part before, and in each part those for rank 0 first, then those for rank 1, ...; away, the rows
// of a part lie in the order of their senders.
//
// A part that has left is on its way until it is asked for: what the caller does in between runs beside it, and so
// does, in backward, what was recorded in between (Variable::backward). Gradients travel the same routes backwards, so
// every rank must go backward through all parts, with or without rows. The group outlives the graph.
class Trip;  // what is on its way

// All parts leave home at once, the first one first, and arrive one by one. Backward is a Homebound's way.
class Outbound {
 public:
  Outbound(const Variable& x_ND, std::vector<Exchange> parts, ProcessGroup& group);
  Variable arrive(std::size_t part);  // its rows, away

 private:
  std::shared_ptr<Trip> trip_;
  Variable left_ND_;  // until all parts have arrived
  std::size_t to_arrive_;
  std::vector<Tensor> away_;  // by part, until it arrives
};

// The way back of the same exchanges: parts leave one by one, in any order, and arrive at home together. Backward is an
// Outbound's way.
class Homebound {
 public:
  Homebound(std::vector<Exchange> parts, ProcessGroup& group);
  void leave(std::size_t part, const Variable& x_RD);
  Variable arrive();  // the rows of all parts

 private:
  std::shared_ptr<Trip> trip_;
  std::vector<Variable> left_;  // by part
  Tensor home_ND_;
};

}  // namespace switchyard
