#pragma once

#include <cstddef>
#include <string>

#include "tensor/device.h"

// What cudaStream_t and cudaEvent_t point to, so that code beside the kernels can name streams without CUDA's headers.
struct CUstream_st;
struct CUevent_st;

namespace switchyard::cuda {

// Where the calling thread's kernels run on this GPU, in order. Makes it the thread's current GPU.
CUstream_st* compute_stream(Device device);

// Makes this GPU the calling thread's current one and touches nothing on it; for a thread without kernels.
void make_current(Device device);

// A place in the work of a stream.
class Event {
 public:
  // Behind all that is on the stream now.
  explicit Event(CUstream_st* stream);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // Whether the GPU has come by; never waits, and may be asked from any thread.
  bool reached() const;
  CUevent_st* handle() const { return event_; }

 private:
  CUevent_st* event_ = nullptr;
};

// What is put on the stream from here on begins after the event. The host does not wait.
void follow(CUstream_st* stream, const Event& event);

// A stream beside the compute streams, whose kernels the GPU prefers when both have some to start.
class SideStream {
 public:
  explicit SideStream(Device device);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  CUstream_st* handle() const { return stream_; }

 private:
  CUstream_st* stream_ = nullptr;
};

// The bus address of a GPU, which tells the GPUs of one machine apart however they are numbered here.
std::string gpu_address(int index);

// Locks host memory in its place, so that a GPU's copies need no detour; where the system refuses, nothing changes.
void pin(std::byte* memory, std::size_t bytes);
void unpin(std::byte* memory);

}  // namespace switchyard::cuda
