#include "data/batch.h"

#include <algorithm>

#include "tensor/error.h"

namespace switchyard {

BatchWriter::BatchWriter(std::int64_t samples, std::int64_t seq_len) : seq_len_(seq_len), samples_(samples) {
  batch_.tokens_T = Tensor::empty({samples * seq_len}, DType::i32, Device{});
  batch_.targets_T = Tensor::empty({samples * seq_len}, DType::i32, Device{});
}

void BatchWriter::add(std::span<const std::int32_t> window) {
  const auto size = static_cast<std::int64_t>(window.size());
  SY_CHECK(added_ < samples_ && size <= seq_len_ + 1, "sample ", added_, " of ", samples_, " with ", size,
           " tokens of ", seq_len_ + 1);
  const std::int64_t present = std::min(size, seq_len_), predicted = std::max<std::int64_t>(size - 1, 0);
  std::int32_t* tokens = batch_.tokens_T.data<std::int32_t>() + added_ * seq_len_;
  std::int32_t* targets = batch_.targets_T.data<std::int32_t>() + added_ * seq_len_;
  std::copy_n(window.begin(), present, tokens);
  std::fill(tokens + present, tokens + seq_len_, 0);
  std::copy_n(window.end() - predicted, predicted, targets);
  std::fill(targets + predicted, targets + seq_len_, -1);
  batch_.targets += predicted;
  ++added_;
}

Batch BatchWriter::finish() {
  while (added_ < samples_) add({});
  return std::move(batch_);
}

void check_tokens(std::span<const std::int32_t> tokens, std::int64_t vocab_size, const TokenFile& file) {
  const auto outside = [&](std::int32_t token) { return token < 0 || token >= vocab_size; };
  const auto wrong = std::ranges::find_if(tokens, outside);
  SY_REQUIRE(wrong == tokens.end(), Fault::data, file.bin().path(), ": holds the token ", *wrong,
             "; the model's vocabulary has ", vocab_size);
}

}  // namespace switchyard
