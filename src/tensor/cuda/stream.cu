#include "tensor/cuda/stream.h"

#include "tensor/cuda/context.cuh"
#include "tensor/cuda/table.h"

namespace switchyard::cuda {
namespace {

// The call's failure was expected; the next check must not see it again.
void forget_error() { static_cast<void>(cudaGetLastError()); }

}  // namespace

CUstream_st* compute_stream(Device device) { return context(device).stream(); }

void make_current(Device device) { CUDA_CHECK(cudaSetDevice(device.index)); }

Event::Event(CUstream_st* stream) {
  CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
  CUDA_CHECK(cudaEventRecord(event_, stream));
}

// Errors are left alone here and below: at exit the driver may be gone before this.
Event::~Event() { cudaEventDestroy(event_); }

bool Event::reached() const {
  const cudaError_t status = cudaEventQuery(event_);
  if (status != cudaErrorNotReady) CUDA_CHECK(status);
  return status == cudaSuccess;
}

void follow(CUstream_st* stream, const Event& event) { CUDA_CHECK(cudaStreamWaitEvent(stream, event.handle(), 0)); }

SideStream::SideStream(Device device) {
  make_current(device);
  int least = 0, greatest = 0;
  CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  CUDA_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
}

SideStream::~SideStream() { cudaStreamDestroy(stream_); }

bool is_built() { return true; }

int gpu_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  forget_error();
  return 0;
}

std::string gpu_name(int index) {
  cudaDeviceProp gpu;
  CUDA_CHECK(cudaGetDeviceProperties(&gpu, index));
  return gpu.name;
}

std::string gpu_address(int index) {
  char address[32] = {};
  CUDA_CHECK(cudaDeviceGetPCIBusId(address, sizeof(address), index));
  return address;
}

void pin(std::byte* memory, std::size_t bytes) {
  if (cudaHostRegister(memory, bytes, cudaHostRegisterPortable) != cudaSuccess) forget_error();
}

void unpin(std::byte* memory) {
  if (cudaHostUnregister(memory) != cudaSuccess) forget_error();
}

}  // namespace switchyard::cuda
