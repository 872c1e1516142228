#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// f(i, number first + i) for i in [0, count), `each` numbers of a block of Philox.
template <std::uint64_t each, class Draw, class F>
void for_each_number(PhiloxKey key, std::uint64_t first, std::int64_t elements, Draw draw, F f) {
  const auto count = static_cast<std::uint64_t>(elements);
  const std::uint64_t begin = first / each, end = count == 0 ? begin : (first + count - 1) / each + 1;
#pragma omp parallel for schedule(static) if (count > 1 << 14)
  for (std::uint64_t block = begin; block < end; ++block) {
    const auto words = philox(key, block);
    for (std::uint64_t word = 0; word < each; ++word) {
      const std::uint64_t i = each * block + word - first;  // wraps where the block begins before `first`
      if (i < count) f(i, draw(words, word));
    }
  }
}

float draw_uniform(const std::array<std::uint32_t, 4>& words, std::uint64_t word) { return uniform_f32(words[word]); }

}  // namespace

void uniform(Tensor& y, PhiloxKey key, std::uint64_t first) {
  float* out = y.data<float>();
  for_each_number<4>(key, first, y.numel(), draw_uniform, [out](std::uint64_t i, float u) { out[i] = u; });
}

// One radius and one angle give two numbers.
void normal(Tensor& y, PhiloxKey key, std::uint64_t first) {
  float* out = y.data<float>();
  const auto draw = [](const std::array<std::uint32_t, 4>& words, std::uint64_t word) {
    const float radius = std::sqrt(-2 * std::log(uniform_f32(words[0])));
    const float angle = 2 * std::numbers::pi_v<float> * uniform_f32(words[1]);
    return radius * (word == 0 ? std::cos(angle) : std::sin(angle));
  };
  for_each_number<2>(key, first, y.numel(), draw, [out](std::uint64_t i, float n) { out[i] = n; });
}

void jitter(Tensor& y, const Tensor& x, PhiloxKey key, std::uint64_t first, float eps) {
  const float* in = x.data<float>();
  float* out = y.data<float>();
  for_each_number<4>(key, first, y.numel(), draw_uniform,
                     [=](std::uint64_t i, float u) { out[i] = in[i] * (1 - eps + 2 * eps * u); });
}

void dropout(Tensor& y_RF, const Tensor& x_RF, const Tensor& id_R, const Tensor& order_R, DropoutMask mask) {
  const std::int64_t rows = x_RF.dim(0), columns = x_RF.dim(1);
  const std::int32_t* ids = id_R.data<std::int32_t>();
  const std::int32_t* order = order_R ? order_R.data<std::int32_t>() : nullptr;
  const float scale = 1 / (1 - mask.rate);
  with_row_type(x_RF.dtype(), [&](auto type) {
    using T = decltype(type);
#pragma omp parallel for schedule(static) if (rows * columns > 1 << 12)
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* x = x_RF.data<T>() + r * columns;
      T* y = y_RF.data<T>() + r * columns;
      const std::int64_t id = ids[order ? order[r] : r];
      if (id < 0) {
        std::copy_n(x, columns, y);
        continue;
      }
      const auto first = static_cast<std::uint64_t>(id * mask.width + mask.first);
      for (std::uint64_t block = first / 4; 4 * block < first + static_cast<std::uint64_t>(columns); ++block) {
        const auto words = philox(mask.key, block);
        for (std::uint64_t word = 0; word < 4; ++word) {
          const std::uint64_t f = 4 * block + word - first;  // wraps where the block begins before `first`
          if (f < static_cast<std::uint64_t>(columns))
            y[f] = T(uniform_f32(words[word]) < mask.rate ? 0.0f : to_float(x[f]) * scale);
        }
      }
    }
  });
}

}  // namespace switchyard::cpu
