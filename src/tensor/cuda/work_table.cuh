#pragma once

#include <cstdint>
#include <vector>

#include "tensor/cuda/launch.cuh"

// Work on many tensors in one launch: a table of them, uploaded, and chunks numbered through all of them, so that a
// block finds its chunk's tensor with a binary search.
namespace switchyard::cuda {

// An Entry has a `first_chunk`. What has no chunks gets no entry.
template <class Entry>
struct WorkTable {
  std::vector<Entry> entries;
  std::int64_t chunks = 0;

  void add(Entry entry, std::int64_t count) {
    if (count == 0) return;
    entry.first_chunk = chunks;
    chunks += count;
    entries.push_back(entry);
  }
};

// The last entry that does not begin after the chunk, by the numbers of its member `First`. An entry without chunks has
// the number of the next one.
template <auto First, class Entry>
__device__ const Entry& entry_of(const Entry* table, int entries, std::int64_t chunk) {
  int low = 0, high = entries;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table[middle].*First <= chunk ? low : high) = middle;
  }
  return table[low];
}

inline bool aligned(const void* p, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

}  // namespace switchyard::cuda
