#include "layers/vocabulary.h"

#include <algorithm>

#include "dist/collectives.h"

namespace switchyard {
namespace {

// The losses of a chunk of rows, and their gradient by the logits of this rank's words.
void chunk_loss(Tensor& loss_C, Tensor& dlogits_CV, const Tensor& logits_CV, const Tensor& target_C, float scale,
                ProcessGroup& tensor) {
  const Kernels& k = kernels(logits_CV.device());
  const std::int64_t rows = logits_CV.dim(0);
  Tensor part = Tensor::empty({rows, 4}, DType::f32, logits_CV.device());
  Tensor parts = Tensor::empty({tensor.size(), rows, 4}, DType::f32, logits_CV.device());
  k.cross_entropy_part(part, logits_CV, target_C);
  tensor.all_gather(parts, part);
  k.cross_entropy_whole(loss_C, dlogits_CV, logits_CV, target_C, parts, scale);
}

// As head_loss (autograd/head.cpp), with logits of this rank's words only. dx is this rank's summand, by its words.
HeadLoss parallel_head_loss(const Variable& x_TD, const Variable& w_VD, const Tensor& target_T, std::int64_t chunk,
                            float scale, ProcessGroup& tensor) {
  const std::int64_t tokens = x_TD.shape()[0], words = w_VD.shape()[0], rows = tokens / tensor.size();
  const Kernels& k = kernels(x_TD.device());
  const Tensor& x = x_TD.value();
  const Device device = x.device();
  const Weight& w = w_VD.weight(x.dtype());
  const bool records = is_recording() && x_TD.requires_grad();

  Tensor token_loss = Tensor::empty({tokens}, DType::f32, device), loss = Tensor::empty({1}, DType::f32, device), dx,
         dw;
  if (records) {
    dx = empty_like(x);
    dw = Tensor::zeros(w_VD.shape(), DType::f32, device, Memory::gradients);
  }
  chunk = std::clamp<std::int64_t>(tokens, 1, chunk);
  const Tensor logits_CV = Tensor::empty({chunk, words}, DType::f32, device);
  const Tensor dlogits_CV = records ? Tensor::empty({chunk, words}, x.dtype(), device) : Tensor{};
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t end = std::min(begin + chunk, tokens);
    const Tensor x_rows = x.rows(begin, end);
    Tensor logits = logits_CV.rows(0, end - begin), loss_rows = token_loss.rows(begin, end);
    Tensor dlogits = records ? dlogits_CV.rows(0, end - begin) : Tensor{};
    k.weight_matmul(logits, x_rows, w, Trans::yes);
    chunk_loss(loss_rows, dlogits, logits, target_T.rows(begin, end), scale, tensor);
    if (!records) continue;
    Tensor dx_rows = dx.rows(begin, end);
    k.weight_matmul(dx_rows, dlogits, w, Trans::no);
    k.matmul(dw, dlogits, x_rows, Trans::yes, Trans::no, Into::accumulate);
  }
  k.sum(loss, token_loss.rows(rows * tensor.rank(), rows * (tensor.rank() + 1)), Into::overwrite);
  k.scale(loss, Tensor::of(std::span<const float>(&scale, 1), {1}, device));

  return {record("parallel_head_loss", loss, {x_TD, w_VD},
                 [&k, dx, dw](const Tensor& dy) mutable -> Grads {
                   k.scale(dx, dy);
                   k.scale(dw, dy);
                   return {std::move(dx), std::move(dw)};
                 }),
          token_loss};
}

}  // namespace

Vocabulary::Vocabulary(std::int64_t words, ProcessGroup& tensor)
    : words_(words),
      begin_(words * tensor.rank() / tensor.size()),
      end_(words * (tensor.rank() + 1) / tensor.size()),
      tensor_(tensor) {
  SY_CHECK(words >= tensor.size(), "a vocabulary of ", words, " words for ", tensor.size(), " ranks");
}

Variable Vocabulary::table(const std::string& name, std::int64_t d_model, Init init, ParameterMaker& make,
                           Replicas replicas) const {
  const Box whole{{}, {words_, d_model}}, part = cut(whole, 0, begin_, end_);
  return make.part(name, whole.shape, {part}, part.shape, init, Decay::no, replicas);
}

Tensor Vocabulary::mine(const Tensor& word_T) const {
  Tensor index = Tensor::empty(word_T.shape(), DType::i32, Device{});
  std::ranges::transform(std::span(word_T.data<std::int32_t>(), static_cast<std::size_t>(word_T.numel())),
                         index.data<std::int32_t>(), [this](std::int32_t word) {
                           return begin_ <= word && word < end_ ? word - static_cast<std::int32_t>(begin_) : -1;
                         });
  return index;
}

Variable Vocabulary::embed(const Variable& table_VD, const Tensor& word_T, DType dtype) const {
  return sum_rows(embedding(table_VD, to_device(mine(word_T), table_VD.device()), dtype), tensor_);
}

HeadLoss Vocabulary::loss(const Variable& x_RD, const Variable& w_VD, const Tensor& target_T, float scale) const {
  const Tensor target = to_device(mine(target_T), x_RD.device());
  if (tensor_.size() == 1) return head_loss(x_RD, w_VD, target, scale);  // one kernel instead of two
  // The same chunks on every rank, whose words may differ by one; about 16 MiB of logits, as head_loss has.
  constexpr std::int64_t kLogits = std::int64_t{4} << 20, kLeastRows = 256;
  const std::int64_t most_words = (words_ + tensor_.size() - 1) / tensor_.size();
  return parallel_head_loss(gather_rows(x_RD, tensor_), w_VD, target, std::max(kLeastRows, kLogits / most_words), scale,
                            tensor_);
}

}  // namespace switchyard
