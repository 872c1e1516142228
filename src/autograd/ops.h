#pragma once

#include "autograd/variable.h"
#include "tensor/kernels.h"

namespace switchyard {

// Every differentiable op. Each is defined, forward and backward together, in the file named beside it. Rows x are f32
// or bf16; parameters are f32 and their gradients f32; a bf16 product reads the parameter's compute copy.
// Letters as in tensor/kernels.h.

// linear.cpp: y = x w^T, x (R, I), w (O, I) -> (R, O) of x's type, or f32
Variable linear(const Variable& x, const Variable& w);
Variable linear_f32(const Variable& x, const Variable& w);  // x f32 or bf16, the product in f32 (the router)
// grouped.cpp: rows [offsets[e], offsets[e + 1]) with expert e, x (R, I), w (E, O, I), offsets i32 (E + 1) -> (R, O).
// The offsets may lie in host memory whatever the device. Where every expert has exactly rows_each > 0 rows, saying so
// spares the reading of them; offsets may be empty.
Variable grouped_linear(const Variable& x, const Variable& w, Tensor offsets, std::int64_t rows_each = 0);

// add.cpp: a + b, of one shape and type
Variable add(const Variable& a, const Variable& b);
// times.cpp: x * factor
Variable times(const Variable& x, float factor);
// with_loss.cpp: x, whose backward also goes through loss_1, with a gradient of 1
Variable with_loss(const Variable& x, const Variable& loss_1);
// rms_norm.cpp: x (R, D), w (D)
Variable rms_norm(const Variable& x, const Variable& w, float eps);
// add(a, b) and the norm of it, in one pass over the rows each way
struct AddNorm {
  Variable sum, normed;
};
AddNorm add_rms_norm(const Variable& a, const Variable& b, const Variable& w, float eps);
// rope.cpp: queries and keys of fused rows (T, shape.width()) normed by head and rotated. wq, wk (head_dim), or both
// empty Variables for no norm
Variable qk_norm_rope(const Variable& qkv, const Variable& wq, const Variable& wk, float eps, AttentionShape shape,
                      Rope rope);
// attention.cpp: causal attention of fused rows (T, shape.width()) -> (T, n_heads * head_dim). bias_HB (n_heads,
// buckets), or an empty Variable, is added to a head's scores by the bucket of their distance.
Variable attention(const Variable& qkv, AttentionShape shape, const Variable& bias_HB = {},
                   RelativeBuckets buckets = {});
// activation.cpp: (R, 2F) -> (R, F) where gated, else the same shape
Variable activate(const Variable& x, Activation kind);

// dropout.cpp: elements of rows (R, F) dropped by the mask, which knows row r as id[order[r]], or id[r] where order is
// empty; i32, and -1 drops nothing
Variable dropout(const Variable& x_RF, Tensor id_R, Tensor order_R, DropoutMask mask);

// embedding.cpp: rows of table_VD (f32) by token id, as `dtype`; ids i32 (T)
Variable embedding(const Variable& table_VD, Tensor ids_T, DType dtype);
// head.cpp: sum over rows of -log softmax(x w^T)[target] * scale, one f32 number; target -1 counts nothing. Works in
// chunks of rows, never holding the logits of all; the gradients are made with the loss, as nothing else needs them.
struct HeadLoss {
  Variable loss_1;
  Tensor token_loss_T;  // f32, unscaled; 0 where the target is -1
};
HeadLoss head_loss(const Variable& x_TD, const Variable& w_VD, Tensor target_T, float scale);

// rows.cpp: y[n] = x[token[n]] (zeros for -1), whose transpose sums the slots of each token; slot (T, K), token (N)
Variable dispatch_rows(const Variable& x_TD, Tensor token_N, Tensor slot_TK);
// that transpose: y[t] = sum_k x[slot[t, k]]
Variable sum_slots(const Variable& x_ND, Tensor token_N, Tensor slot_TK);
// y[t] = sum_k weight[t, k] x[slot[t, k]]; each row of x has exactly one slot
Variable combine_rows(const Variable& x_ND, const Variable& weight_TK, Tensor slot_TK);
// y[i] = x[index[i]] for a permutation and its inverse
Variable permute_rows(const Variable& x, Tensor index, Tensor inverse);

// router.cpp, all f32
struct Softmax {
  Variable p_TE;
  Tensor lse_T;
};
Softmax softmax(const Variable& logits_TE);
struct TopK {
  Variable weight_TK;
  Tensor expert_TK;  // i32
};
TopK top_k(const Variable& p_TE, std::int64_t k, Renormalise renormalise);
// The same weights of experts that were chosen otherwise; a token's are different ones.
Variable choose(const Variable& p_TE, Tensor expert_TK, Renormalise renormalise);
// The weights of all experts, 0 for those not chosen: choose's transpose.
Variable spread_choices(const Variable& weight_TK, Tensor expert_TK, std::int64_t experts);
Variable balance_loss(const Variable& p_TE, Tensor f_GE, float scale);
Variable z_loss(const Variable& logits_TE, const Softmax& softmax, float scale);

// scores.cpp, all f32
// sigmoid of logits, and what share each is of a token's sum
struct Sigmoid {
  Variable s_TE, share_TE;
};
Sigmoid sigmoid(const Variable& logits_TE);
// clean + sigma normal with sigma = softplus(raw) + floor
struct Noisy {
  Variable logits_TE, sigma_TE;
};
Noisy noisy_logits(const Variable& clean_TE, const Variable& raw_TE, Tensor normal_TE, float floor);
// How probable it is that other noise has an expert among the K chosen; best: the K + 1 largest noisy logits.
Variable choice_probability(const Variable& clean_TE, const Variable& sigma_TE, const TopK& best);
// x times uniform numbers in (1 - eps, 1 + eps), those from number `first` on of the key's, as f32
Variable jitter(const Variable& x, PhiloxKey key, std::uint64_t first, float eps);

}  // namespace switchyard
