#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include <cuda_runtime.h>

// Streams and events of the SIMT machine. Kernels and copies are done when the call returns; what may take its time is
// Work, which a stand-in for a library (nccl.cpp) puts on a stream and ends when it likes. A stream that is told to
// wait for an event holds its thread back instead, as the thread does the stream's work.
namespace simt {

struct Work {
  // Called when all before it on the stream is done, with the lock held.
  std::function<void(const std::shared_ptr<Work>&)> begin;
  bool begun = false, done = false;
};

// Guards streams, events and work; the stand-ins use it for their own state too.
std::unique_lock<std::mutex> lock_streams();
// With the lock held.
void put(cudaStream_t stream, const std::shared_ptr<Work>& work);
void end(const std::shared_ptr<Work>& work);

// How many GPUs cudaGetDeviceCount finds; 0 is a machine without a driver. One at the start.
void set_gpu_count(int count);

}  // namespace simt
