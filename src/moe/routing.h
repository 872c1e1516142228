#pragma once

#include "autograd/variable.h"

namespace switchyard {

// Shape letters of this folder: T tokens of this rank, P parts of them, K experts a token, E experts, e experts of this
// rank, N routed rows (T K choices, or what the experts own), R rows received, G routing groups, D model width, F
// feed-forward width.

// What the router saw, for metrics; sums over this rank's tokens.
struct RoutingStats {
  Tensor kept_PE;    // i32: rows that each expert took of each part
  Tensor balance_1;  // f32: this rank's share of the balance loss, coefficient left out; 1 in all when uniform
  Tensor z_1;        // f32: likewise of the z-loss
  Tensor entropy_1;  // f32: of p, nats, summed over tokens
  std::int64_t tokens = 0, choices = 0;

  // Of no tokens.
  static RoutingStats none(std::int64_t experts, Device device);
};

// Where each token goes and with what weight. Tokens may fall into parts, whose rows travel one part after the other.
struct Routing {
  Variable weight_TK;  // f32
  Tensor slot_TK;      // i32: the row of each choice among all rows, grouped by part and expert; -1 where dropped
  Tensor token_N;      // i32: the token of each row, -1 for rows that nobody took
  Tensor count_PE;     // i32: rows that each expert took of each part
  // The rows that each expert owns of a part, taken or not; 0 where it has just those that it took, so that their
  // numbers must be read.
  std::int64_t rows_each = 0;
  Variable loss_1;  // f32: balance and z-loss with their coefficients
  RoutingStats stats;
};

}  // namespace switchyard
