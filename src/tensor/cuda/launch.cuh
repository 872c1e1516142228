#pragma once

#include "tensor/cuda/context.cuh"
// after the runtime, whose words it uses
#include <cuda_bf16.h>

#include "tensor/tensor.h"

namespace switchyard::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// The one place that launches: launch(context, "rms_norm", kernel, grid, block, shared_bytes, args…). An empty grid
// launches nothing. On the host's SIMT machine (tests/simt) the same call runs the kernel's threads as fibers.
template <class... Parameters, class... Arguments>
void launch([[maybe_unused]] Context& context, [[maybe_unused]] const char* name, void (*kernel)(Parameters...),
            dim3 grid, dim3 block, std::size_t shared_bytes, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef __CUDACC__
  constexpr std::size_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking)
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
  kernel<<<grid, block, shared_bytes, context.stream()>>>(Parameters(arguments)...);
#else
  (simt::check_argument(name, arguments), ...);
  simt::run({name, grid, block, shared_bytes}, [&] { kernel(Parameters(arguments)...); });
#endif
  CUDA_CHECK(cudaGetLastError());
}

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Blocks for a kernel that loops over `items` in strides of its grid: enough to fill the GPU, never more.
inline unsigned grid_for(const Context& context, std::int64_t items, int per_block, int blocks_each = 8) {
  const std::int64_t most = std::int64_t{context.multiprocessors()} * blocks_each;
  const std::int64_t wanted = ceil_div(items, std::int64_t{per_block});
  return unsigned(wanted < most ? wanted : most);
}

// Calls f with a value of the C++ type behind a float dtype: the only switch over dtypes in this folder.
template <class F>
void dispatch_float(DType dtype, const char* op, F&& f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::bf16: return f(__nv_bfloat16{});
    default: SY_CHECK(false, op, ": expects f32 or bf16, got ", dtype);
  }
}

template <class T>
const T* ptr(const Tensor& t) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return reinterpret_cast<const T*>(t.data<bf16>());
  else
    return t.data<T>();
}
template <class T>
T* ptr(Tensor& t) {
  return const_cast<T*>(ptr<T>(std::as_const(t)));
}
// Null for the empty tensor, which stands for "no value".
template <class T>
const T* ptr_or_null(const Tensor& t) {
  return t ? ptr<T>(t) : nullptr;
}
template <class T>
T* ptr_or_null(Tensor& t) {
  return t ? ptr<T>(t) : nullptr;
}

}  // namespace switchyard::cuda
