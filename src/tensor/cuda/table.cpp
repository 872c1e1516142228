#include "tensor/cuda/table.h"

#include "tensor/cuda/kernels.h"

namespace switchyard::cuda {

const Kernels& table() {
  static const Kernels kTable{
      .system_allocate = system_allocate,
      .system_release = system_release,
      .zero = zero,
      .copy = copy,
      .add = add,
      .scale = scale,
      .matmul = matmul,
      .packed_size = packed_size,
      .pack = pack,
      .weight_matmul = weight_matmul,
      .grouped_matmul = grouped_matmul,
      .grouped_matmul_dw = grouped_matmul_dw,
      .rms_norm = rms_norm,
      .rms_norm_backward = rms_norm_backward,
      .add_rms_norm = add_rms_norm,
      .add_rms_norm_backward = add_rms_norm_backward,
      .qk_norm_rope = qk_norm_rope,
      .qk_norm_rope_backward = qk_norm_rope_backward,
      .attention = attention,
      .attention_backward = attention_backward,
      .activation = activation,
      .activation_backward = activation_backward,
      .gather_rows = gather_rows,
      .scatter_add_rows = scatter_add_rows,
      .combine_rows = combine_rows,
      .combine_rows_backward = combine_rows_backward,
      .softmax = softmax,
      .softmax_backward = softmax_backward,
      .top_k = top_k,
      .top_k_backward = top_k_backward,
      .count_choices = count_choices,
      .choice_fractions = choice_fractions,
      .admit = admit,
      .place = place,
      .balance_loss = balance_loss,
      .balance_loss_backward = balance_loss_backward,
      .z_loss = z_loss,
      .z_loss_backward = z_loss_backward,
      .entropy = entropy,
      .cross_entropy = cross_entropy,
      .cross_entropy_part = cross_entropy_part,
      .cross_entropy_whole = cross_entropy_whole,
      .sum = sum,
      .uniform = uniform,
      .adamw = adamw,
      .sum_squares = sum_squares,
      .clip_factor = clip_factor,
  };
  return kTable;
}

}  // namespace switchyard::cuda
