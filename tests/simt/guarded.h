#pragma once

#include <cstddef>
#include <string>

// Memory that shows who misuses it: the SIMT machine's device memory, and the host's tensors beside it. Every block
// ends at a page that nobody may touch: an access behind it stops the program with the name of the kernel, block and
// thread. What no page can guard, the bytes to the next multiple of 16 and those before the block, holds NaNs, and
// run() says after which kernel they were written over. A block starts poisoned: every float in it is a NaN. Freed
// blocks stay forbidden for a long while.
namespace simt {

enum class Where { device, host };
std::byte* take(std::size_t bytes, Where where);
// Stops the program where there is no such block, or something that was no kernel wrote outside it.
void give(const void* block);

// Whether all these bytes belong to one block of device memory.
bool on_device(const void* begin, std::size_t bytes);
// Whether a pointer is into a block of device memory or the guards around it, where it may point but not be followed.
bool near_device(const void* p);
// What was written outside blocks since the last call, in words; empty where nothing was.
std::string damage();

// The calling thread may touch device memory while one lives; elsewhere that stops the program, as on a real machine.
// Needs a processor with protection keys: without, everybody may.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;

 private:
  int before_;
};
bool host_is_kept_out();

// Makes an access of a guarded page name the kernel's thread before the program stops.
void name_bad_accesses();
// For each system thread that runs kernels: a place to do that where the thread's stack is what is bad.
void add_signal_stack();

}  // namespace simt
