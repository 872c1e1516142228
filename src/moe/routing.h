#pragma once

#include <optional>
#include <string>

#include "autograd/variable.h"
#include "moe/health.h"
#include "tensor/philox.h"

namespace switchyard {

// Shape letters of this folder: T tokens of this rank, P parts of them, K experts a token, E experts, e experts of this
// rank, N routed rows (T K choices, or what the experts own), R rows received, G routing groups, D model width, F
// feed-forward width.

// Training drops what exceeds an expert's capacity; evaluation and generation drop nothing.
enum class Capacity : bool { unlimited, enforced };

// What a pass tells its routers.
struct RouterPass {
  Capacity capacity = Capacity::enforced;
  float share = 0;               // 1 / tokens of the global batch, so that losses sum up
  std::int64_t step = 0;         // counted from 0
  std::int64_t first_token = 0;  // where this rank's tokens begin in the global batch of the step
  float balance_scale = 1;       // multiplies the coefficients of balance losses
  bool observe = false;          // for a reading of the router's health
  bool record = false;           // to hand out what was decided about each token
  std::int64_t window = 0;       // generation: tokens of each text so far, among which experts choose; else 0
  Tensor token_T{};              // i32, on the host: their ids, which hash routing goes by

  bool trains() const { return capacity == Capacity::enforced; }
  // For random numbers of a layer in this step.
  PhiloxKey key(std::uint64_t seed, const std::string& layer, const char* purpose) const {
    return philox_key(seed, text(layer, " ", purpose, ", step ", step));
  }
};

// What was decided about each of this rank's tokens, and from what.
struct Decisions {
  Tensor logits_TE;  // f32, that scores are made of, with what noise there is; empty where tokens are hashed
  Tensor expert_TK;  // i32: choices before capacity, best first, all experts where these choose; -1 is none
  Tensor slot_TK;    // i32: as in Routing
};

// What the router saw, for metrics; sums over this rank's tokens.
struct RoutingStats {
  Tensor kept_PE;         // i32: rows that each expert took of each part
  Tensor balance_1;       // f32: this rank's share of the balance loss, coefficient left out; 1 in all when
                          // uniform, or K where all choices count (BalanceCounts::all)
  Tensor z_1;             // f32: likewise of the z-loss
  Tensor balance_term_1;  // f32: this rank's share of all losses but z's, with their coefficients
  Tensor entropy_1;       // f32: of p, nats, summed over tokens
  std::int64_t tokens = 0;
  std::int64_t choices = 0;            // that could have been kept, where chance leaves none out
  Tensor chosen_E{};                   // f32: where it does, those of each expert that could have; else empty
  std::optional<Observation> seen{};   // in a pass that observes
  std::optional<Decisions> decided{};  // in a pass that records

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
  Variable loss_1;  // f32: all losses of the router (router_losses.h), with their coefficients
  RoutingStats stats;
};

}  // namespace switchyard
