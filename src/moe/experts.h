#pragma once

#include <string>

#include "autograd/ops.h"
#include "dist/mesh.h"
#include "layers/parameter_maker.h"

namespace switchyard {

// The expert feed-forward networks of this rank, e = experts / expert ranks of them, each cut to its part of d_ff where
// there are expert tensor ranks, applied to rows grouped by expert: then the outputs of these ranks are to be summed.
class Experts {
 public:
  // What training drops of the hidden features of rows whose names are id[order] (autograd/ops.h: dropout).
  struct Dropout {
    Tensor id_R, order_R;
    PhiloxKey key{};
    float rate = 0;
  };

  Experts(std::int64_t experts, std::int64_t d_model, std::int64_t d_ff, Activation activation, const std::string& name,
          Init in, Init out, const Mesh& mesh, ParameterMaker& make);

  // rows (R, d_model), offsets i32 (e + 1) -> (R, d_model); rows_each as grouped_linear takes it
  Variable operator()(const Variable& rows_RD, const Tensor& offsets_e1, std::int64_t rows_each,
                      const Dropout& dropout) const;

 private:
  Activation activation_;
  std::int64_t d_ff_, first_feature_;  // of all ranks, and this rank's first of them
  Variable up_, down_;
};

}  // namespace switchyard
