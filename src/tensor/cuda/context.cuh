#pragma once

#include <cublasLt.h>

#include <memory>
#include <span>

#include "tensor/cuda/check.cuh"
#include "tensor/tensor.h"

namespace switchyard::cuda {

class Products;  // matmul.cu: the products that cuBLASLt chose, by shape

// One thread's work on one GPU: a stream on which its kernels run in order, and what belongs to it. Memory that a
// kernel frees may serve the next one at once, because both are on this stream.
class Context {
 public:
  explicit Context(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const { return {DeviceType::cuda, device_}; }
  cudaStream_t stream() const { return stream_; }
  cublasLtHandle_t blas() const { return blas_; }
  Products& products() { return *products_; }
  int multiprocessors() const { return multiprocessors_; }

  // Device memory for the kernels of one call of a table row: the next call takes the same bytes. 256-byte aligned.
  template <class T>
  T* scratch(std::int64_t count) {
    return reinterpret_cast<T*>(scratch_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  // A copy of host values for the kernels of one call, in scratch of its own; the host does not wait.
  template <class T>
  const T* upload(std::span<const T> values) {
    return reinterpret_cast<const T*>(upload_bytes(std::as_bytes(values)));
  }
  // Host to device and back, in order with the stream. To the device the host waits only for large blocks; from it,
  // always.
  void copy_in(std::byte* to, const std::byte* from, std::size_t bytes);
  void copy_out(std::byte* to, const std::byte* from, std::size_t bytes);

 private:
  std::byte* scratch_bytes(std::size_t bytes);
  const std::byte* upload_bytes(std::span<const std::byte> values);
  // Pinned memory that the copies before have left.
  std::byte* staging(std::size_t bytes);

  int device_, multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  cublasLtHandle_t blas_ = nullptr;
  Tensor scratch_, uploads_;
  std::byte* staging_ = nullptr;
  std::size_t staged_ = 0;  // bytes in use since the last time the stream was seen idle
  std::unique_ptr<Products> products_;
};

// The calling thread's context of a device, made at first use; makes that device the thread's current one.
Context& context(Device device);

}  // namespace switchyard::cuda
