#pragma once

#include <memory>
#include <span>
#include <utility>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/memory.h"
#include "tensor/shape.h"

namespace switchyard {

// Owns one block of device memory; shared by every Tensor that views it.
class Storage {
 public:
  Storage(Device device, std::size_t size, Memory kind)
      : device_(device), size_(size), kind_(kind), bytes_(allocate(device, size, kind)) {}
  ~Storage() { release(device_, bytes_, size_, kind_); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Device device() const { return device_; }
  std::byte* bytes() const { return bytes_; }

 private:
  Device device_;
  std::size_t size_;
  Memory kind_;
  std::byte* bytes_;
};

// A typed, shaped view of shared memory: always contiguous, always row-major.
// Copying a Tensor copies the view and never the data.
class Tensor {
 public:
  Tensor() = default;  // the empty tensor, which stands for "no value"
  static Tensor empty(Shape shape, DType dtype, Device device, Memory kind = Memory::activations);
  static Tensor zeros(Shape shape, DType dtype, Device device, Memory kind = Memory::activations);

  // A copy of host values on `device`.
  template <class T>
  static Tensor of(std::span<const T> values, Shape shape, Device device) {
    SY_CHECK(static_cast<std::int64_t>(values.size()) == shape.numel(), values.size(), " values for a tensor ", shape);
    return of_bytes(values.data(), shape, dtype_of<T>, device);
  }

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(int axis) const { return shape_[axis]; }
  std::int64_t numel() const { return shape_.numel(); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device(); }
  std::size_t size_in_bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  // True when no other Tensor sees this memory, so that it may be reused in place.
  bool sole_owner() const { return storage_.use_count() == 1; }

  template <class T>
  T* data() {
    return const_cast<T*>(std::as_const(*this).data<T>());
  }
  template <class T>
  const T* data() const {
    SY_CHECK(dtype_of<T> == dtype_, "tensor holds ", dtype_, ", asked for ", dtype_of<T>);
    return reinterpret_cast<const T*>(bytes());
  }
  std::byte* bytes() { return const_cast<std::byte*>(std::as_const(*this).bytes()); }
  const std::byte* bytes() const { return storage_->bytes() + offset_ * static_cast<std::int64_t>(size_of(dtype_)); }

  Tensor view(Shape shape) const;                           // same elements, new shape
  Tensor rows(std::int64_t begin, std::int64_t end) const;  // a range of the first axis

 private:
  static Tensor of_bytes(const void* values, Shape shape, DType dtype, Device device);

  std::shared_ptr<Storage> storage_;
  std::int64_t offset_ = 0;  // in elements
  Shape shape_;
  DType dtype_ = DType::f32;
};

inline Tensor empty_like(const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); }
inline Tensor zeros_like(const Tensor& t) { return Tensor::zeros(t.shape(), t.dtype(), t.device()); }

// The tensor itself where it has that type already, else a converted copy.
Tensor cast(const Tensor& x, DType dtype);
// The tensor itself where it lives there already, else a copy on that device.
Tensor to_device(const Tensor& x, Device device);

}  // namespace switchyard
