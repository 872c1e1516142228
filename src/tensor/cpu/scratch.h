#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace switchyard::cpu {

// Working memory of one thread for one purpose (a tag type), kept between calls and only ever growing. It holds
// whatever the last use left, and starts at a cache line.
template <class Purpose, class T>
T* scratch(std::int64_t count) {
  struct Release {
    void operator()(T* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  thread_local std::unique_ptr<T, Release> memory;
  thread_local std::int64_t size = 0;
  if (count > size) {
    memory.reset();
    size = 0;
    memory.reset(static_cast<T*>(::operator new (static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{64})));
    size = count;
  }
  return memory.get();
}

}  // namespace switchyard::cpu
