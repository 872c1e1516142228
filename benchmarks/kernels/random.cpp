#include "kernels/random.h"

#include <algorithm>

#include "tensor/philox.h"

namespace switchyard::bench {
namespace {

std::int64_t draw(std::int64_t index, std::int64_t below) {
  return static_cast<std::int64_t>(uniform(philox({11, 7}, static_cast<std::uint64_t>(index))[0]) *
                                   static_cast<double>(below));
}

}  // namespace

Tensor random(Shape shape, DType dtype, Device device, double low, double high) {
  constexpr std::int64_t kBlock = 1 << 20;
  static std::uint32_t tensors = 0;
  const PhiloxKey key{++tensors, 0};
  const std::int64_t n = shape.numel(), piece = std::min(n, kBlock);
  Tensor host = Tensor::empty({piece}, DType::f32, Device{});
  for (std::int64_t i = 0; i < piece; ++i) {
    const double x = low + (high - low) * uniform(philox(key, static_cast<std::uint64_t>(i))[0]);
    host.data<float>()[i] = static_cast<float>(x);
  }
  const Tensor block = to_device(cast(host, dtype), device);
  Tensor all = Tensor::empty({n}, dtype, device);
  for (std::int64_t begin = 0; begin < n; begin += piece) {
    const std::int64_t end = std::min(begin + piece, n);
    Tensor part = all.rows(begin, end);
    kernels(device).copy(part, block.rows(0, end - begin));
  }
  return all.view(shape);
}

Weight random_weight(Shape shape, DType rows, Device device) {
  return make_weight(random(shape, DType::f32, device, -0.05, 0.05), rows);
}

std::vector<std::int32_t> random_words(std::int64_t count, std::int64_t words) {
  std::vector<std::int32_t> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<std::int32_t>(draw(i, words)));
  return values;
}

std::vector<std::int32_t> random_choices(std::int64_t tokens, std::int64_t experts) {
  std::vector<std::int32_t> values;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t first = draw(2 * t, experts), step = 1 + draw(2 * t + 1, experts - 1);
    values.push_back(static_cast<std::int32_t>(first));
    values.push_back(static_cast<std::int32_t>((first + step) % experts));
  }
  return values;
}

Tensor indices(const std::vector<std::int32_t>& values, Shape shape, Device device) {
  return Tensor::of(std::span<const std::int32_t>(values), shape, device);
}

Routed::Routed(std::int64_t tokens, Device device) {
  const Tensor expert_TK = indices(random_choices(tokens, kExperts), {tokens, kChoices}, Device{});
  Tensor slot = empty_like(expert_TK), token = Tensor::empty({tokens * kChoices}, DType::i32, Device{}),
         count = Tensor::empty({kExperts}, DType::i32, Device{});
  kernels(Device{}).place(slot, token, count, expert_TK, {.experts = kExperts, .group = tokens});
  slot_TK = to_device(slot, device);
  token_N = to_device(token, device);
  weight_TK = random({tokens, kChoices}, DType::f32, device, 0.1, 1);
}

}  // namespace switchyard::bench
