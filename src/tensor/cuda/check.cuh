#pragma once

#include <cuda_runtime.h>

#include "tensor/error.h"

// Every CUDA call goes through here: CUDA_CHECK(cudaMalloc(&p, n));
#define CUDA_CHECK(call)                                                                                    \
  do {                                                                                                      \
    const cudaError_t status_ = (call);                                                                     \
    if (status_ != cudaSuccess) ::switchyard::fail(#call, cudaGetErrorString(status_), __FILE__, __LINE__); \
  } while (0)
