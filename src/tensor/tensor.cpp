#include "tensor/tensor.h"

#include <cstring>

#include "tensor/kernels.h"

namespace switchyard {

Tensor Tensor::empty(Shape shape, DType dtype, Device device, Memory kind) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.storage_ = std::make_shared<Storage>(device, static_cast<std::size_t>(shape.numel()) * size_of(dtype), kind);
  return t;
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device, Memory kind) {
  Tensor t = empty(shape, dtype, device, kind);
  kernels(device).zero(t);
  return t;
}

Tensor Tensor::of_bytes(const void* values, Shape shape, DType dtype, Device device) {
  Tensor host = empty(shape, dtype, Device{});
  if (host.size_in_bytes() > 0) std::memcpy(host.bytes(), values, host.size_in_bytes());
  return to_device(host, device);
}

Tensor Tensor::view(Shape shape) const {
  SY_CHECK(shape.numel() == numel(), "view: cannot see ", shape_, " as ", shape);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  SY_CHECK(0 <= begin && begin <= end && end <= dim(0), "rows: [", begin, ", ", end, ") is outside ", shape_);
  Tensor t = *this;
  t.shape_ = shape_.with(0, end - begin);
  t.offset_ += begin * shape_.with(0, 1).numel();
  return t;
}

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  kernels(x.device()).copy(y, x);
  return y;
}

Tensor to_device(const Tensor& x, Device device) {
  if (x.device() == device) return x;
  Tensor y = Tensor::empty(x.shape(), x.dtype(), device);
  kernels(device.type == DeviceType::cpu ? x.device() : device).copy(y, x);
  return y;
}

}  // namespace switchyard
