#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;

// y[i] = f(x[i], y[i]), sixteen bytes of the wider type at a time where both addresses allow it.
template <class Y, class X, class F>
__global__ void map_kernel(Y* y, const X* x, std::int64_t n, F f) {
  constexpr int kPack = 16 / int(sizeof(Y) > sizeof(X) ? sizeof(Y) : sizeof(X));
  struct alignas(kPack * sizeof(Y)) Ys {
    Y v[kPack];
  };
  struct alignas(kPack * sizeof(X)) Xs {
    X v[kPack];
  };
  const bool aligned = reinterpret_cast<std::uintptr_t>(y) % sizeof(Ys) == 0 &&
                       reinterpret_cast<std::uintptr_t>(x) % sizeof(Xs) == 0;
  const std::int64_t packs = aligned ? n / kPack : 0;
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x,
                     stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = first; i < packs; i += stride) {
    const Xs in = reinterpret_cast<const Xs*>(x)[i];
    Ys out = reinterpret_cast<Ys*>(y)[i];
    for (int j = 0; j < kPack; ++j) out.v[j] = f(in.v[j], out.v[j]);
    reinterpret_cast<Ys*>(y)[i] = out;
  }
  for (std::int64_t i = packs * kPack + first; i < n; i += stride) y[i] = f(x[i], y[i]);
}

struct Convert {
  template <class X, class Y>
  __device__ Y operator()(X x, Y) const {
    return Y(float(x));
  }
};
struct Add {
  template <class X, class Y>
  __device__ Y operator()(X x, Y y) const {
    return Y(float(y) + float(x));
  }
};

template <class F>
void map(const char* name, Tensor& y, const Tensor& x, F f) {
  Context& on = context(y.device());
  const std::int64_t n = y.numel();
  dispatch_float(y.dtype(), name, [&](auto y_zero) {
    dispatch_float(x.dtype(), name, [&](auto x_zero) {
      using Y = decltype(y_zero);
      using X = decltype(x_zero);
      launch(on, name, map_kernel<Y, X, F>, grid_for(on, n, kThreads * 4), kThreads, 0, ptr<Y>(y), ptr<X>(x), n, f);
    });
  });
}

template <class T>
__global__ void scale_kernel(T* x, const float* factor, std::int64_t n) {
  const float by = *factor;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride)
    x[i] = T(float(x[i]) * by);
}

}  // namespace

std::byte* system_allocate(Device device, std::size_t bytes) {
  context(device);  // makes the device current
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // it is told by the caller; the next check must not see it again
    return nullptr;
  }
  CUDA_CHECK(status);
  return static_cast<std::byte*>(memory);
}

// Waits for the device, as cudaFree does: kernels on any stream may still use the block.
void system_release(Device, std::byte* block, std::size_t) { CUDA_CHECK(cudaFree(block)); }

void zero(Tensor& x) {
  CUDA_CHECK(cudaMemsetAsync(x.bytes(), 0, x.size_in_bytes(), context(x.device()).stream()));
}

void copy(Tensor& y, const Tensor& x) {
  const bool to = y.device().type == DeviceType::cuda, from = x.device().type == DeviceType::cuda;
  if (to && from && y.dtype() != x.dtype()) return map("copy", y, x, Convert{});
  SY_CHECK(y.dtype() == x.dtype(), "copy between devices: ", y.dtype(), " from ", x.dtype());
  if (to && from)
    CUDA_CHECK(cudaMemcpyAsync(y.bytes(), x.bytes(), y.size_in_bytes(), cudaMemcpyDeviceToDevice,
                               context(y.device()).stream()));
  else if (to)
    context(y.device()).copy_in(y.bytes(), x.bytes(), y.size_in_bytes());
  else
    context(x.device()).copy_out(y.bytes(), x.bytes(), y.size_in_bytes());
}

void add(Tensor& y, const Tensor& x) { map("add", y, x, Add{}); }

void scale(Tensor& x, const Tensor& factor_1) {
  Context& on = context(x.device());
  const std::int64_t n = x.numel();
  dispatch_float(x.dtype(), "scale", [&](auto zero) {
    using T = decltype(zero);
    launch(on, "scale", scale_kernel<T>, grid_for(on, n, kThreads), kThreads, 0, ptr<T>(x), ptr<float>(factor_1), n);
  });
}

}  // namespace switchyard::cuda
