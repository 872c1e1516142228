#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;

// A thread draws a block of Philox, `each` numbers at a time: f(i, draw(words, which)) for i in [0, count).
template <std::uint64_t each, class Draw, class F>
__global__ void draw_kernel(PhiloxKey key, std::uint64_t first, std::uint64_t count, Draw draw, F f) {
  const std::uint64_t end = (first + count - 1) / each + 1, stride = std::uint64_t{gridDim.x} * blockDim.x;
  for (std::uint64_t block = first / each + std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; block < end;
       block += stride) {
    const auto words = philox(key, block);
    for (unsigned word = 0; word < each; ++word) {
      const std::uint64_t i = each * block + word - first;  // wraps where the block begins before `first`
      if (i < count) f(i, draw(words, word));
    }
  }
}

using Words = std::array<std::uint32_t, 4>;

struct DrawUniform {
  __device__ float operator()(const Words& words, unsigned word) const { return uniform_f32(words[word]); }
};
// One radius and one angle give two numbers.
struct DrawNormal {
  __device__ float operator()(const Words& words, unsigned word) const {
    const float radius = sqrtf(-2 * logf(uniform_f32(words[0]))), angle = 6.2831853f * uniform_f32(words[1]);
    return radius * (word == 0 ? cosf(angle) : sinf(angle));
  }
};
struct Store {
  float* y;
  __device__ void operator()(std::uint64_t i, float x) const { y[i] = x; }
};
struct Jitter {
  float* y;
  const float* x;
  float eps;
  __device__ void operator()(std::uint64_t i, float u) const { y[i] = x[i] * (1 - eps + 2 * eps * u); }
};

// A thread draws a block of Philox: columns 4 b to 4 b + 3 of a row, counted from the block that the row begins in.
template <class T>
__global__ void dropout_kernel(T* y_RF, const T* x_RF, const int* ids, const int* order, std::int64_t rows,
                               std::int64_t columns, std::int64_t blocks, DropoutMask mask) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  const float scale = 1 / (1 - mask.rate);
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * blocks; i += stride) {
    const std::int64_t r = i / blocks, id = ids[order ? order[r] : r], first = id * mask.width + mask.first,
                       block = id < 0 ? i % blocks : first / 4 + i % blocks;
    const auto words = philox(mask.key, std::uint64_t(block));
    for (int word = 0; word < 4; ++word) {
      const std::int64_t f = 4 * block + word - (id < 0 ? 0 : first);
      if (f < 0 || f >= columns) continue;
      const float x = float(x_RF[r * columns + f]);
      y_RF[r * columns + f] = T(id < 0 ? x : uniform_f32(words[word]) < mask.rate ? 0.0f : x * scale);
    }
  }
}

template <std::uint64_t each, class Draw, class F>
void draw(const char* name, const Tensor& y, PhiloxKey key, std::uint64_t first, Draw number, F f) {
  Context& on = context(y.device());
  const std::int64_t blocks = y.numel() == 0 ? 0 : ceil_div(y.numel(), std::int64_t(each)) + 1;
  launch(on, name, draw_kernel<each, Draw, F>, grid_for(on, blocks, kThreads), kThreads, 0, key, first,
         static_cast<std::uint64_t>(y.numel()), number, f);
}

}  // namespace

void uniform(Tensor& y, PhiloxKey key, std::uint64_t first) {
  draw<4>("uniform", y, key, first, DrawUniform{}, Store{ptr<float>(y)});
}

void normal(Tensor& y, PhiloxKey key, std::uint64_t first) {
  draw<2>("normal", y, key, first, DrawNormal{}, Store{ptr<float>(y)});
}

void jitter(Tensor& y, const Tensor& x, PhiloxKey key, std::uint64_t first, float eps) {
  draw<4>("jitter", y, key, first, DrawUniform{}, Jitter{ptr<float>(y), ptr<float>(x), eps});
}

void dropout(Tensor& y_RF, const Tensor& x_RF, const Tensor& id_R, const Tensor& order_R, DropoutMask mask) {
  Context& on = context(y_RF.device());
  const std::int64_t rows = x_RF.dim(0), columns = x_RF.dim(1), blocks = ceil_div(columns, std::int64_t{4}) + 1;
  dispatch_float(x_RF.dtype(), "dropout", [&](auto zero) {
    using T = decltype(zero);
    launch(on, "dropout", dropout_kernel<T>, grid_for(on, rows * blocks, kThreads), kThreads, 0, ptr<T>(y_RF),
           ptr<T>(x_RF), ptr<std::int32_t>(id_R), ptr_or_null<std::int32_t>(order_R), rows, columns, blocks, mask);
  });
}

}  // namespace switchyard::cuda
