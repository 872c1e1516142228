#pragma once

#include "tensor/kernels.h"

// The CUDA kernels, one group per file. table.cpp puts them into the table.
namespace switchyard::cuda {

// memory.cu
std::byte* system_allocate(Device, std::size_t bytes);
void system_release(Device, std::byte*, std::size_t bytes);
void zero(Tensor& x);
void copy(Tensor& y, const Tensor& x);
void add(Tensor& y, const Tensor& x);
void scale(Tensor& x, const Tensor& factor_1);

// matmul.cu
void matmul(Tensor& c, const Tensor& a, const Tensor& b, Trans ta, Trans tb, Into into);

// weight.cu
PackedSize packed_size(Shape weight, DType dtype);
void pack(Weight& w, const Tensor& master);
void weight_matmul(Tensor& y, const Tensor& x, const Weight& w, Trans tw);

// grouped.cu
void grouped_matmul(Tensor& y, const Tensor& x, const Weight& w_EOI, const Tensor& offsets_e1, std::int64_t rows_each,
                    Trans tw);
void grouped_matmul_dw(Tensor& dw_EOI, const Tensor& dy_RO, const Tensor& x_RI, const Tensor& offsets_e1,
                       std::int64_t rows_each, Into into);

// rms_norm.cu
void rms_norm(Tensor& y_RD, Tensor& rstd_R, const Tensor& x_RD, const Tensor& w_D, float eps);
void rms_norm_backward(Tensor& dx_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& x_RD, const Tensor& w_D,
                       const Tensor& rstd_R);
void add_rms_norm(Tensor& y_RD, Tensor& sum_RD, Tensor& rstd_R, const Tensor& a_RD, const Tensor& b_RD,
                  const Tensor& w_D, float eps);
void add_rms_norm_backward(Tensor& dsum_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& dskip_RD,
                           const Tensor& sum_RD, const Tensor& w_D, const Tensor& rstd_R);

// rope.cu
void qk_norm_rope(Tensor& y, Tensor& rstd, const Tensor& x, const Tensor& wq, const Tensor& wk, float eps,
                  AttentionShape shape, Rope rope);
void qk_norm_rope_backward(Tensor& dx, Tensor& dwq, Tensor& dwk, const Tensor& dy, const Tensor& x, const Tensor& wq,
                           const Tensor& wk, const Tensor& rstd, AttentionShape shape, Rope rope);

// attention.cu
void attention(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const Tensor& bias_HB, AttentionShape shape,
               RelativeBuckets buckets);
void attention_backward(Tensor& dqkv, Tensor& dbias_HB, const Tensor& dy, const Tensor& qkv, const Tensor& bias_HB,
                        const Tensor& y, const Tensor& lse_BHT, AttentionShape shape, RelativeBuckets buckets);

// activation.cu
void activation(Tensor& y, const Tensor& x, Activation kind);
void activation_backward(Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind);

// rows.cu
void gather_rows(Tensor& y_ND, const Tensor& x_RD, const Tensor& index_N);
void scatter_add_rows(Tensor& y_RD, const Tensor& x_ND, const Tensor& index_N);
void combine_rows(Tensor& y_TD, const Tensor& x_ND, const Tensor& slot_TK, const Tensor& weight_TK);
void combine_rows_backward(Tensor& dx_ND, Tensor& dweight_TK, const Tensor& dy_TD, const Tensor& x_ND,
                           const Tensor& slot_TK, const Tensor& weight_TK);
void scatter_ids(Tensor& id_N, const Tensor& x_TK, const Tensor& slot_TK);

// router.cu
void softmax(Tensor& p_TE, Tensor& lse_T, const Tensor& logits_TE);
void softmax_backward(Tensor& dlogits_TE, const Tensor& dp_TE, const Tensor& p_TE);
void top_k(Tensor& weight_TK, Tensor& expert_TK, const Tensor& p_TE, Renormalise);
void top_k_backward(Tensor& dp_TE, const Tensor& dweight_TK, const Tensor& weight_TK, const Tensor& expert_TK,
                    const Tensor& p_TE, Renormalise);
void balance_loss(Tensor& loss_1, const Tensor& p_TE, const Tensor& f_GE, float scale);
void balance_loss_backward(Tensor& dp_TE, const Tensor& dloss_1, const Tensor& f_GE, float scale);
void z_loss(Tensor& loss_1, const Tensor& lse_T, float scale);
void z_loss_backward(Tensor& dlogits_TE, const Tensor& dloss_1, const Tensor& lse_T, const Tensor& p_TE, float scale);
void entropy(Tensor& sum_1, const Tensor& p_TE);
void observe_routing(RoutingSums& sums, const Tensor& logits_TE, const Tensor& before_TE, const Tensor& p_TE,
                     const Tensor& weight_TK, const Tensor& expert_TK, const Tensor& slot_TK);

// choices.cu
void choose(Tensor& weight_TK, const Tensor& expert_TK, const Tensor& p_TE, Renormalise);
void selection_scores(Tensor& score_TE, const Tensor& p_TE, const Tensor& bias_E, GroupLimit);
void thin_choices(Tensor& expert_TK, const Tensor& weight_TK, const Tensor& random_TK, float threshold);
void count_meetings(Tensor& met_GD, const Tensor& expert_TK, Placement);
void adjust_bias(Tensor& bias_E, const Tensor& count_E, float rate);
void admit_by_priority(Tensor& slot_TK, const Tensor& expert_TK, const Tensor& score_TK, Placement, Priority);
void capped_scores(Tensor& score_TE, const Tensor& p_TE, Placement placement, ExpertCap cap);

// scores.cu
void sigmoid(Tensor& s_TE, Tensor& share_TE, const Tensor& logits_TE);
void sigmoid_backward(Tensor& dlogits_TE, const Tensor& ds_TE, const Tensor& dshare_TE, const Tensor& s_TE);
void noisy_logits(Tensor& noisy_TE, Tensor& sigma_TE, const Tensor& clean_TE, const Tensor& raw_TE,
                  const Tensor& normal_TE, float floor);
void noisy_logits_backward(Tensor& draw_TE, const Tensor& dnoisy_TE, const Tensor& dsigma_TE, const Tensor& raw_TE,
                           const Tensor& normal_TE);
void choice_probability(Tensor& p_TE, const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                        const Tensor& best_expert);
void choice_probability_backward(Tensor& dclean_TE, Tensor& dsigma_TE, Tensor& dbest, const Tensor& dp_TE,
                                 const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                                 const Tensor& best_expert);
void squared_variation(Tensor& loss_1, Tensor& dsum_GE, const Tensor& sum_GE, float scale);
void choice_fractions(Tensor& f_GE, const Tensor& chosen_GKE, std::int64_t counted, float tokens);

// place.cu
void count_choices(Tensor& chosen_GKE, const Tensor& expert_TK, Placement);
void admit(Tensor& slot_TK, const Tensor& expert_TK, Placement placement);
void place(Tensor& slot_TK, Tensor& token_N, Tensor& count_PE, const Tensor& expert_TK, Placement);

// cross_entropy.cu
void cross_entropy(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R, float scale);
void cross_entropy_part(Tensor& part_R4, const Tensor& logits_RV, const Tensor& target_R);
void cross_entropy_whole(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R,
                         const Tensor& part_PR4, float scale);
void sum(Tensor& y_1, const Tensor& x, Into into);

// random.cu
void uniform(Tensor& y, PhiloxKey key, std::uint64_t first);
void normal(Tensor& y, PhiloxKey key, std::uint64_t first);
void jitter(Tensor& y, const Tensor& x, PhiloxKey key, std::uint64_t first, float eps);
void dropout(Tensor& y_RF, const Tensor& x_RF, const Tensor& id_R, const Tensor& order_R, DropoutMask mask);

// optimizer.cu
void adamw(std::span<const AdamWTensors>, const AdamWStep&, const Tensor& grad_scale_1);
void sum_squares(Tensor& y_1, std::span<const Tensor> xs);
void clip_factor(Tensor& factor_1, const Tensor& squares, float clip);

// adafactor.cu
void square_means(Tensor& means, std::span<const AdafactorTensors>, const Tensor& grad_scale_1);
void moment_factors(Tensor& v, Tensor& means, std::span<const Matrices>, const AdafactorStep&,
                    const Tensor& grad_scale_1);
void update_squares(Tensor& squares_M2, std::span<const AdafactorTensors>, const Tensor& factors,
                    const Tensor& grad_scale_1);
void adafactor(std::span<const AdafactorTensors>, const AdafactorStep&, const Tensor& factors, const Tensor& squares_M2,
               const Tensor& grad_scale_1);

}  // namespace switchyard::cuda
