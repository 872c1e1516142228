#pragma once

#include <vector>

#include "tensor/kernels.h"

namespace switchyard::bench {

// Random numbers in (low, high), never zeros: hardware is faster on zeros. One block of 2^20 again and again.
Tensor random(Shape shape, DType dtype, Device device, double low = -1, double high = 1);
Weight random_weight(Shape shape, DType rows, Device device);

// Each of `count` words with equal chance.
std::vector<std::int32_t> random_words(std::int64_t count, std::int64_t words);
// Two different experts for each token.
std::vector<std::int32_t> random_choices(std::int64_t tokens, std::int64_t experts);
Tensor indices(const std::vector<std::int32_t>& values, Shape shape, Device device);

// Tokens that each chose two of eight experts, placed: which row each choice got, whose token each row is.
struct Routed {
  static constexpr std::int64_t kExperts = 8, kChoices = 2;
  Routed(std::int64_t tokens, Device device);

  Tensor slot_TK, token_N, weight_TK;
};

}  // namespace switchyard::bench
