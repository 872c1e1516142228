#include "autograd/ops.h"

namespace switchyard {
namespace {

void check_index(const char* op, const Tensor& index, int rank) {
  SY_CHECK(index.dtype() == DType::i32 && index.shape().rank() == rank, op, ": index ", index.shape(), " ",
           index.dtype(), ", wanted i32 of rank ", rank);
}

}  // namespace

// y[n] = x[token[n]]        dx[t] = sum_k dy[slot[t, k]]
// Slots and tokens say the same thing from both ends, so that backward gathers too and no two threads meet.
Variable dispatch_rows(const Variable& x_TD, Tensor token_N, Tensor slot_TK) {
  check_index("dispatch_rows", token_N, 1);
  check_index("dispatch_rows", slot_TK, 2);
  SY_CHECK(x_TD.shape().rank() == 2 && slot_TK.dim(0) == x_TD.shape()[0], "dispatch_rows: x ", x_TD.shape(),
           " does not fit slots ", slot_TK.shape());
  const Kernels& k = kernels(x_TD.device());

  Tensor y_ND = Tensor::empty({token_N.dim(0), x_TD.shape()[1]}, x_TD.dtype(), x_TD.device());
  k.gather_rows(y_ND, x_TD.value(), token_N);

  return record("dispatch_rows", y_ND, {x_TD}, [&k, shape = x_TD.shape(), slot_TK](const Tensor& dy_ND) -> Grads {
    Tensor dx_TD = Tensor::empty(shape, dy_ND.dtype(), dy_ND.device());
    k.combine_rows(dx_TD, dy_ND, slot_TK, Tensor{});
    return {dx_TD};
  });
}

// y[t] = sum_k x[slot[t, k]]        dx[n] = dy[token[n]]
Variable sum_slots(const Variable& x_ND, Tensor token_N, Tensor slot_TK) {
  check_index("sum_slots", token_N, 1);
  check_index("sum_slots", slot_TK, 2);
  SY_CHECK(x_ND.shape().rank() == 2 && token_N.dim(0) == x_ND.shape()[0], "sum_slots: x ", x_ND.shape(),
           " does not fit tokens ", token_N.shape());
  const Kernels& k = kernels(x_ND.device());

  Tensor y_TD = Tensor::empty({slot_TK.dim(0), x_ND.shape()[1]}, x_ND.dtype(), x_ND.device());
  k.combine_rows(y_TD, x_ND.value(), slot_TK, Tensor{});

  return record("sum_slots", y_TD, {x_ND}, [&k, shape = x_ND.shape(), token_N](const Tensor& dy_TD) -> Grads {
    Tensor dx_ND = Tensor::empty(shape, dy_TD.dtype(), dy_TD.device());
    k.gather_rows(dx_ND, dy_TD, token_N);
    return {dx_ND};
  });
}

// y[t] = sum_k weight[t, k] x[slot[t, k]]        dx[slot[t, k]] = weight[t, k] dy[t]
//                                                dweight[t, k] = x[slot[t, k]] . dy[t]
Variable combine_rows(const Variable& x_ND, const Variable& weight_TK, Tensor slot_TK) {
  check_index("combine_rows", slot_TK, 2);
  SY_CHECK(x_ND.shape().rank() == 2, "combine_rows: x ", x_ND.shape());
  SY_CHECK(weight_TK.shape() == slot_TK.shape() && weight_TK.dtype() == DType::f32, "combine_rows: weights ",
           weight_TK.shape(), " ", weight_TK.dtype(), " for slots ", slot_TK.shape());
  const Kernels& k = kernels(x_ND.device());

  Tensor y_TD = Tensor::empty({slot_TK.dim(0), x_ND.shape()[1]}, x_ND.dtype(), x_ND.device());
  k.combine_rows(y_TD, x_ND.value(), slot_TK, weight_TK.value());

  // Only the weights' gradient reads x again: constant weights (hash routing) need not keep it.
  const bool learnt = weight_TK.requires_grad();
  return record("combine_rows", y_TD, {x_ND, weight_TK},
                [&k, x_ND = learnt ? x_ND.value() : Tensor{}, weight_TK = weight_TK.value(), slot_TK,
                 shape = x_ND.shape()](const Tensor& dy_TD) -> Grads {
                  Tensor dx_ND = Tensor::empty(shape, dy_TD.dtype(), dy_TD.device());
                  Tensor dweight_TK = x_ND ? empty_like(weight_TK) : Tensor{};
                  k.combine_rows_backward(dx_ND, dweight_TK, dy_TD, x_ND, slot_TK, weight_TK);
                  return {dx_ND, dweight_TK};
                });
}

// y[i] = x[index[i]]        dx[i] = dy[inverse[i]]
Variable permute_rows(const Variable& x, Tensor index, Tensor inverse) {
  check_index("permute_rows", index, 1);
  check_index("permute_rows", inverse, 1);
  SY_CHECK(x.shape().rank() == 2 && index.dim(0) == x.shape()[0] && inverse.dim(0) == x.shape()[0], "permute_rows: x ",
           x.shape(), " does not fit index ", index.shape(), " and inverse ", inverse.shape());
  const Kernels& k = kernels(x.device());

  Tensor y = empty_like(x.value());
  k.gather_rows(y, x.value(), index);

  return record("permute_rows", y, {x}, [&k, inverse](const Tensor& dy) -> Grads {
    Tensor dx = empty_like(dy);
    k.gather_rows(dx, dy, inverse);
    return {dx};
  });
}

}  // namespace switchyard
