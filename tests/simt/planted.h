#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "cuda/both.h"
#include "simt/simt.h"
#include "tensor/cuda/block.cuh"

// Small kernels with one mistake each, for the machine's own tests.
namespace switchyard::test {

template <class... Parameters, class... Arguments>
void run(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
         Arguments... arguments) {
  cuda::launch(cuda::context(kGpu), name, kernel, grid, block, shared_bytes, arguments...);
}

// What a launch says was wrong; empty where it was content.
inline std::string error_of(const std::function<void()>& launch) {
  try {
    launch();
  } catch (const simt::Error& e) {
    return e.what();
  }
  return "";
}
inline void expect_error(const std::function<void()>& launch, std::initializer_list<const char*> parts) {
  const std::string error = error_of(launch);
  for (const char* part : parts) EXPECT_NE(error.find(part), std::string::npos) << "no '" << part << "' in: " << error;
}

inline Tensor on_gpu(Shape shape, DType dtype = DType::i32) { return Tensor::empty(shape, dtype, kGpu); }
inline std::vector<std::int32_t> values(const Tensor& t) {
  const Tensor host = to_device(t, Device{});
  return {host.data<std::int32_t>(), host.data<std::int32_t>() + host.numel()};
}

}  // namespace switchyard::test
