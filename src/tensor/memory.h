#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "tensor/device.h"

namespace switchyard {

// What a block of memory is for; the account that `inspect`, `bench` and out-of-memory errors print.
enum class Memory { parameters, gradients, optimizer, activations, communication, checkpoint };
inline constexpr int kMemoryKinds = 6;

constexpr const char* name_of(Memory kind) {
  constexpr const char* names[] = {"parameters",  "gradients",     "optimizer",
                                   "activations", "communication", "checkpoint"};
  return names[static_cast<int>(kind)];
}

// Bytes in use now and at the worst moment since the last reset, and what is held from the system.
struct MemoryUse {
  std::array<std::int64_t, kMemoryKinds> now{}, peak{};
  std::int64_t total_now = 0, total_peak = 0, reserved = 0;
};

MemoryUse memory_use(Device device);
void reset_peak(Device device);
// Gives cached blocks back to the system.
void release_cache(Device device);

// Blocks are rounded up to one of eight sizes an octave and kept for the next tensor of that size, so that a steady
// step neither asks the system for memory nor touches a fresh page. Safe to call from several threads.
// Throws Error (Fault::memory) with the account when the device has no more.
std::byte* allocate(Device device, std::size_t bytes, Memory kind);
void release(Device device, std::byte* block, std::size_t bytes, Memory kind);

}  // namespace switchyard
