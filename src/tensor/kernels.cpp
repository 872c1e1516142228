#include "tensor/kernels.h"

#include "tensor/cpu/table.h"
#include "tensor/cuda/table.h"
#include "tensor/profile.h"

namespace switchyard {

const Kernels& kernels(Device device) {
  const Kernels& backend = device.type == DeviceType::cpu ? cpu::table() : cuda::table();
  Profile* profile = current_profile();
  return profile ? profile->timed(backend, device) : backend;
}

void synchronize(Device device) {
  if (device.type == DeviceType::cuda) cuda::synchronize(device);
}

}  // namespace switchyard
