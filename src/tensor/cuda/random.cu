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

}  // namespace switchyard::cuda
