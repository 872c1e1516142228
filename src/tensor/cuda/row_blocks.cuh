#pragma once

#include "tensor/cuda/block.cuh"

// A parameter's gradient is a sum over rows: each block of rows sums its own part, and the parts are added in order.
namespace switchyard::cuda {

constexpr int kPartLanes = 16;

// Lanes of y share the parts of 32 columns; x goes along the columns.
template <int lanes = kPartLanes>
__global__ void __launch_bounds__(kWarpSize* lanes)
    sum_parts_kernel(float* y, const float* parts, int count, std::int64_t stride, std::int64_t columns) {
  const Shared<float> sums = SharedMemory().take<float>(kWarpSize * lanes);
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarpSize + threadIdx.x;
  float sum = 0;
  if (column < columns)
    for (int part = int(threadIdx.y); part < count; part += lanes) sum += parts[part * stride + column];
  sums[thread_in_block()] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= columns) return;
  for (int lane = 1; lane < lanes; ++lane) sum += sums[lane * kWarpSize + int(threadIdx.x)];
  y[column] = sum;
}

// y[c] = sum_p parts[p * stride + c] for c < columns, in the same order every time; 0 where there are no parts.
inline void sum_parts(Context& on, const char* name, float* y, const float* parts, int count, std::int64_t stride,
                      std::int64_t columns) {
  launch(on, name, sum_parts_kernel<>, unsigned(ceil_div(columns, std::int64_t{kWarpSize})),
         dim3(kWarpSize, kPartLanes), shared_bytes_of<float>(kWarpSize * kPartLanes), y, parts, count, stride, columns);
}

}  // namespace switchyard::cuda
