#include "simt/streams.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <deque>

namespace simt {
namespace {

std::mutex mutex;
std::condition_variable changed;
std::atomic<int> gpus = 1;

}  // namespace
}  // namespace simt

struct CUstream_st {
  std::deque<std::shared_ptr<simt::Work>> queue;
};
struct CUevent_st {
  std::shared_ptr<simt::Work> after;
  bool reached() const { return !after || after->done; }
};

namespace simt {
namespace {

// Begins what has come to the head of its stream; what has ended leaves.
void advance(CUstream_st& stream) {
  while (!stream.queue.empty()) {
    const std::shared_ptr<Work> head = stream.queue.front();
    if (!head->begun) {
      head->begun = true;
      head->begin(head);  // may end it, and come here again
    }
    if (!head->done) return;
    if (!stream.queue.empty() && stream.queue.front() == head) stream.queue.pop_front();
  }
}

// Few streams live at a time, and work does not know its own.
std::deque<CUstream_st*>& streams() {
  static auto* all = new std::deque<CUstream_st*>;
  return *all;
}

template <class Condition>
cudaError_t wait_until(Condition condition) {
  std::unique_lock lock(mutex);
  changed.wait(lock, condition);
  return cudaSuccess;
}

}  // namespace

std::unique_lock<std::mutex> lock_streams() { return std::unique_lock(mutex); }

void put(cudaStream_t stream, const std::shared_ptr<Work>& work) {
  stream->queue.push_back(work);
  advance(*stream);
}

void end(const std::shared_ptr<Work>& work) {
  work->done = true;
  for (std::size_t i = 0; i < streams().size(); ++i) {
    CUstream_st& stream = *streams()[i];
    if (!stream.queue.empty() && stream.queue.front() == work) advance(stream);
  }
  changed.notify_all();
}

void set_gpu_count(int count) { gpus = count; }

}  // namespace simt

cudaError_t cudaGetDeviceCount(int* count) {
  *count = simt::gpus;
  return *count > 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaDeviceGetPCIBusId(char* address, int size, int device) {
  std::snprintf(address, static_cast<std::size_t>(size), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const auto lock = simt::lock_streams();
  *stream = new CUstream_st;
  simt::streams().push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const auto lock = simt::lock_streams();
  std::erase(simt::streams(), stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return simt::wait_until([&] { return !stream || stream->queue.empty(); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) { return cudaEventSynchronize(event); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const auto lock = simt::lock_streams();
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto lock = simt::lock_streams();
  event->after = !stream || stream->queue.empty() ? nullptr : stream->queue.back();
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const auto lock = simt::lock_streams();
  return event->reached() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return simt::wait_until([&] { return event->reached(); });
}
