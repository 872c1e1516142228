#pragma once

#include <vector>

#include "tensor/kernels.h"

namespace switchyard {

// Small tensors of one type and device, one after the other, on the host, by one copy.
template <class T>
std::vector<T> host_values(const std::vector<Tensor>& parts) {
  if (parts.empty()) return {};
  std::int64_t count = 0;
  for (const Tensor& part : parts) count += part.numel();
  const Tensor flat = Tensor::empty({count}, dtype_of<T>, parts[0].device());
  std::int64_t end = 0;
  for (const Tensor& part : parts) {
    Tensor place = flat.rows(end, end + part.numel()).view(part.shape());
    kernels(part.device()).copy(place, part);
    end += part.numel();
  }
  const Tensor host = to_device(flat, Device{});
  return {host.data<T>(), host.data<T>() + count};
}

}  // namespace switchyard
