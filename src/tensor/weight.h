#pragma once

#include "tensor/tensor.h"

namespace switchyard {

// One matrix (O, I), or a stack of them (E, O, I), in the form that a backend's products read. Made from the master, in
// f32 or rounded to the type of the rows already, and remade after every change of it. Opaque: only kernels look
// inside, so that a backend may keep tiles, one copy an orientation, or nothing beyond the master.
struct Weight {
  Shape shape;
  DType dtype = DType::f32;  // type of the rows that it multiplies
  Tensor plain;              // row-major, where the backend reads that; the master itself where that has this type
  Tensor forward, backward;  // u8, packed for y = x w^T and for dx = dy w, where the backend wants that

  explicit operator bool() const { return plain || forward; }
};

// Allocates the compute copy of `master` (f32, or of `dtype`) for products of `dtype`, and fills it.
Weight make_weight(const Tensor& master, DType dtype);

// Writes the compute copy anew. Nothing to do where it is the master.
void refresh(Weight& weight, const Tensor& master);

}  // namespace switchyard
