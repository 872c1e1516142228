#include <algorithm>

#include "autograd/ops.h"

namespace switchyard {
namespace {

// Every chunk reads and writes all of dw (V, D), so that few rows would cost more in traffic than in arithmetic; more
// than 512 gained nothing for V = 8192, D = 512, and 256 are within a tenth of 512 for V = 32768. Logits take 16 MiB,
// or 1 KiB a word.
std::int64_t rows_of_chunk(std::int64_t words) {
  constexpr std::int64_t kLogits = std::int64_t{4} << 20, kLeastRows = 256;
  return std::max(kLeastRows, kLogits / words);
}

}  // namespace

// l = x w^T        y = scale sum_t (logsumexp l_t - l_t[target_t])
// dl = scale (softmax l - onehot target)        dx = dl w        dw = dl^T x
HeadLoss head_loss(const Variable& x_TD, const Variable& w_VD, Tensor target_T, float scale) {
  const std::int64_t tokens = x_TD.shape()[0], words = w_VD.shape()[0];
  SY_CHECK(x_TD.shape()[-1] == w_VD.shape()[1], "head_loss: x ", x_TD.shape(), " does not fit w ", w_VD.shape());
  SY_CHECK(target_T.numel() == tokens && target_T.dtype() == DType::i32, "head_loss: ", target_T.dtype(), " targets ",
           target_T.shape(), " for ", tokens, " tokens");
  const Kernels& k = kernels(x_TD.device());
  const Tensor& x = x_TD.value();
  const Device device = x.device();
  const Weight& w = w_VD.weight(x.dtype());
  const bool needs_dx = is_recording() && x_TD.requires_grad(), needs_dw = is_recording() && w_VD.requires_grad();

  Tensor token_loss = Tensor::empty({tokens}, DType::f32, device), loss = Tensor::empty({1}, DType::f32, device), dx,
         dw;
  if (needs_dx) dx = empty_like(x);
  if (needs_dw) dw = Tensor::empty(w_VD.shape(), DType::f32, device, Memory::gradients);
  if (needs_dw && tokens == 0) k.zero(dw);

  const std::int64_t chunk = std::min(rows_of_chunk(words), std::max<std::int64_t>(tokens, 1));
  const Tensor logits_CV = Tensor::empty({chunk, words}, DType::f32, device);
  const Tensor dlogits_CV = needs_dx || needs_dw ? Tensor::empty({chunk, words}, x.dtype(), device) : Tensor{};
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t end = std::min(begin + chunk, tokens);
    const Tensor x_rows = x.rows(begin, end);
    Tensor logits = logits_CV.rows(0, end - begin), loss_rows = token_loss.rows(begin, end);
    Tensor dlogits = dlogits_CV ? dlogits_CV.rows(0, end - begin) : Tensor{};
    k.weight_matmul(logits, x_rows, w, Trans::yes);
    k.cross_entropy(loss_rows, dlogits, logits, target_T.rows(begin, end), scale);
    if (needs_dx) {
      Tensor dx_rows = dx.rows(begin, end);
      k.weight_matmul(dx_rows, dlogits, w, Trans::no);
    }
    if (needs_dw) k.matmul(dw, dlogits, x_rows, Trans::yes, Trans::no, begin == 0 ? Into::overwrite : Into::accumulate);
  }
  k.sum(loss, token_loss, Into::overwrite);
  k.scale(loss, Tensor::of(std::span<const float>(&scale, 1), {1}, device));

  return {record("head_loss", loss, {x_TD, w_VD},
                 [&k, dx, dw](const Tensor& dy) mutable -> Grads {
                   if (dx) k.scale(dx, dy);
                   if (dw) k.scale(dw, dy);
                   return {std::move(dx), std::move(dw)};
                 }),
          token_loss};
}

}  // namespace switchyard
