#include "tensor/weight.h"

#include "tensor/kernels.h"

namespace switchyard {

Weight make_weight(const Tensor& master, DType dtype) {
  SY_CHECK(master.dtype() == DType::f32 || master.dtype() == dtype, "make_weight: the master is ", master.dtype());
  SY_CHECK(master.shape().rank() == 2 || master.shape().rank() == 3, "make_weight: master ", master.shape());
  Weight weight{.shape = master.shape(), .dtype = dtype, .plain = {}, .forward = {}, .backward = {}};
  const PackedSize size = kernels(master.device()).packed_size(weight.shape, dtype);
  const auto reserve = [&](std::int64_t bytes) {
    return bytes ? Tensor::empty({bytes}, DType::u8, master.device(), Memory::parameters) : Tensor{};
  };
  if (size.plain)
    weight.plain =
        master.dtype() == dtype ? master : Tensor::empty(master.shape(), dtype, master.device(), Memory::parameters);
  weight.forward = reserve(size.forward);
  weight.backward = reserve(size.backward);
  refresh(weight, master);
  return weight;
}

void refresh(Weight& weight, const Tensor& master) {
  SY_CHECK(weight.shape == master.shape(), "refresh: weight ", weight.shape, " from master ", master.shape());
  const bool is_master = weight.dtype == master.dtype() && !weight.forward;
  if (!is_master) kernels(master.device()).pack(weight, cast(master, DType::f32));
}

}  // namespace switchyard
