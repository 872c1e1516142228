#pragma once

#include <array>
#include <ostream>

#include "tensor/tensor.h"

namespace switchyard {

enum class Reduce { sum, max };

enum class Collective { barrier, all_reduce, broadcast, all_gather, reduce_scatter, all_to_all, split, leave };
inline constexpr std::size_t kCollectives = 8;  // how many there are
const char* name_of(Collective collective);

// What a rank gave to a group's collectives of one kind, and what it sent to others for them: bytes by the closed
// formula of docs/communication.md, whatever carries them.
struct Traffic {
  std::int64_t calls = 0, bytes = 0;

  bool operator==(const Traffic&) const = default;
};
using TrafficTable = std::array<Traffic, kCollectives>;  // by Collective

// A collective with those of its arguments that must be the same on every rank of a group.
struct Call {
  Collective collective = Collective::barrier;
  int argument = 0;  // of all_reduce its Reduce, of broadcast the root
  DType dtype = DType::f32;
  Shape shape{};  // of what goes in; of all_to_all one row of it

  static Call all_reduce(const Tensor& x, Reduce op) {
    return {Collective::all_reduce, static_cast<int>(op), x.dtype(), x.shape()};
  }
  static Call broadcast(const Tensor& x, int root) { return {Collective::broadcast, root, x.dtype(), x.shape()}; }
  static Call all_gather(const Tensor& in) { return {Collective::all_gather, 0, in.dtype(), in.shape()}; }
  static Call reduce_scatter(const Tensor& in) { return {Collective::reduce_scatter, 0, in.dtype(), in.shape()}; }
  static Call all_to_all(const Tensor& in) { return {Collective::all_to_all, 0, in.dtype(), in.shape().with(0, 1)}; }

  bool operator==(const Call&) const = default;
};
// "all_reduce(sum) of f32 (3, 4)"
std::ostream& operator<<(std::ostream& out, const Call& call);

}  // namespace switchyard
