#pragma once

#include <cstdint>
#include <vector>

#include "tensor/kernels.h"

namespace switchyard {

// What one row of a device's kernel table took.
struct KernelTime {
  const char* name;
  DeviceType device = DeviceType::cpu;
  std::int64_t calls = 0;
  double seconds = 0;
  double flops = 0;  // of products and attention; 0 for what only moves memory
};

// While one of these lives, the kernels that this thread asks for are timed, call by call, until they are done. For
// that the host waits after each call on a GPU, which makes a step longer: time whole steps without one.
class Profile {
 public:
  Profile();
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  // Rows that were called, the longest first.
  std::vector<KernelTime> times() const;
  // The timed twin of a device's table.
  const Kernels& timed(const Kernels& backend, Device device);

 private:
  Profile* before_;
};

// This thread's profile, or null.
Profile* current_profile();

}  // namespace switchyard
