#include "tensor/cuda/context.cuh"

#include <cstring>
#include <map>

#include "tensor/cuda/products.cuh"
#include "tensor/cuda/table.h"

namespace switchyard::cuda {
namespace {

constexpr std::size_t kStaging = 4 << 20;
constexpr std::size_t kAlign = 256;

std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// The tensor, in memory of at least that many bytes.
std::byte* at_least(Tensor& memory, std::size_t bytes, int device) {
#ifdef __CUDACC__
  const bool serves = memory && memory.size_in_bytes() >= bytes;
#else  // on the SIMT machine no call may see what another left, or write past what it asked for
  const bool serves = false;
#endif
  if (!serves)
    memory = Tensor::empty({std::int64_t(aligned(bytes))}, DType::u8, Device{DeviceType::cuda, device});
  return memory.bytes();
}

}  // namespace

Context::Context(int device) : device_(device) {
  CUDA_CHECK(cudaSetDevice(device));
  CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device));
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&staging_), kStaging));
  BLAS_CHECK(cublasLtCreate(&blas_));
  products_ = std::make_unique<Products>(*this);
}

// Errors are left alone: at exit the driver may be gone before this thread's context.
Context::~Context() {
  products_.reset();
  cublasLtDestroy(blas_);
  cudaFreeHost(staging_);
  cudaStreamDestroy(stream_);
}

std::byte* Context::scratch_bytes(std::size_t bytes) { return at_least(scratch_, bytes, device_); }

std::byte* Context::staging(std::size_t bytes) {
  if (staged_ + bytes > kStaging) {
    CUDA_CHECK(cudaStreamSynchronize(stream_));
    staged_ = 0;
  }
  std::byte* const begin = staging_ + staged_;
  staged_ += aligned(bytes);
  return begin;
}

const std::byte* Context::upload_bytes(std::span<const std::byte> values) {
  std::byte* const to = at_least(uploads_, values.size(), device_);
  copy_in(to, values.data(), values.size());
  return to;
}

void Context::copy_in(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes <= kStaging / 4) {
    std::byte* const pinned = staging(bytes);
    std::memcpy(pinned, from, bytes);
    CUDA_CHECK(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, stream_));
  } else {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_));
    CUDA_CHECK(cudaStreamSynchronize(stream_));
  }
}

void Context::copy_out(std::byte* to, const std::byte* from, std::size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
  CUDA_CHECK(cudaStreamSynchronize(stream_));
  staged_ = 0;
}

Context& context(Device device) {
  thread_local std::map<int, Context> contexts;
  const auto found = contexts.find(device.index);
  if (found == contexts.end()) return contexts.try_emplace(device.index, device.index).first->second;
  CUDA_CHECK(cudaSetDevice(device.index));
  return found->second;
}

void synchronize(Device device) { CUDA_CHECK(cudaStreamSynchronize(context(device).stream())); }

}  // namespace switchyard::cuda
