#include "autograd/ops.h"

namespace switchyard {

// y[t] = table[ids[t]]        dtable[ids[t]] += dy[t], in f32 and in the order of t
Variable embedding(const Variable& table_VD, Tensor ids_T, DType dtype) {
  SY_CHECK(table_VD.shape().rank() == 2 && (table_VD.dtype() == DType::f32 || table_VD.dtype() == dtype),
           "embedding: table ", table_VD.shape(), " ", table_VD.dtype());
  SY_CHECK(ids_T.shape().rank() == 1 && ids_T.dtype() == DType::i32, "embedding: ids ", ids_T.shape(), " ",
           ids_T.dtype());
  const Kernels& k = kernels(table_VD.device());

  Tensor y_TD = Tensor::empty({ids_T.dim(0), table_VD.shape()[1]}, dtype, table_VD.device());
  k.gather_rows(y_TD, table_VD.value(), ids_T);

  return record("embedding", y_TD, {table_VD}, [&k, shape = table_VD.shape(), ids_T](const Tensor& dy_TD) -> Grads {
    Tensor dtable_VD = Tensor::zeros(shape, DType::f32, dy_TD.device(), Memory::gradients);
    k.scatter_add_rows(dtable_VD, dy_TD, ids_T);
    return {dtable_VD};
  });
}

}  // namespace switchyard
