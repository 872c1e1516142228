#pragma once

#include <cstdint>
#include <span>

#include "data/token_file.h"
#include "tensor/tensor.h"

namespace switchyard {

// T = samples * seq_len tokens, sample after sample, and for each the token that follows it; i32, on the CPU.
// Where there is nothing to predict, the target is -1, and the token 0 where there is none either.
struct Batch {
  Tensor tokens_T, targets_T;
  std::int64_t targets = 0;  // how many are not -1
};

// Fills a batch sample by sample.
class BatchWriter {
 public:
  BatchWriter(std::int64_t samples, std::int64_t seq_len);

  // The next sample, from up to seq_len + 1 consecutive tokens.
  void add(std::span<const std::int32_t> window);
  // The batch; samples that were not added are empty.
  Batch finish();

 private:
  Batch batch_;
  std::int64_t seq_len_, samples_, added_ = 0;
};

// Throws Error (Fault::data) unless every token is in [0, vocab_size).
void check_tokens(std::span<const std::int32_t> tokens, std::int64_t vocab_size, const TokenFile& file);

}  // namespace switchyard
