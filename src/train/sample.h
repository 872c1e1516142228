#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/transformer.h"

namespace switchyard {

struct SampleOptions {
  std::int64_t max_tokens = 256;
  std::int64_t context = 256;  // tokens that the model looks back on at most
  double temperature = 0.8;    // 0: always the likeliest token
  std::int64_t top_k = 0;      // draw among the likeliest only; 0: among all
  std::uint64_t seed = 1;
  std::int32_t stop = -1;  // end after this token; -1: never
};

// Goes on from `prompt` (not empty) token by token and hands each new token over. Every rank of the model's mesh calls
// with the same arguments and gets the same tokens.
void sample(const Transformer& model, std::vector<std::int32_t> prompt, const SampleOptions& options,
            const std::function<void(std::int32_t)>& each);

// The index that `uniform` in (0, 1) picks from softmax(logits / temperature), among the top_k largest where top_k > 0.
std::int32_t pick(std::vector<float> logits, double temperature, std::int64_t top_k, double uniform);

}  // namespace switchyard
