#pragma once

#include <cmath>
#include <span>

#include "tensor/philox.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace switchyard {

enum class Trans : bool { no, yes };
enum class Into : bool { overwrite, accumulate };
enum class Renormalise : bool { no, yes };

// Feed-forward non-linearities. The gated ones take rows [gate, up] of width 2F and give F = f(gate) * up; the others
// keep the width. GELU is the tanh form (GPT-2, T5 1.1).
enum class Activation { swiglu, geglu, gelu, relu };
constexpr bool is_gated(Activation a) { return a == Activation::swiglu || a == Activation::geglu; }

// Bytes that a weight's compute copy takes in each form; 0 where the backend does not want that form.
struct PackedSize {
  bool plain = false;
  std::int64_t forward = 0, backward = 0;
};

// Where queries, keys and values lie in one row of a fused projection: n_heads queries, then n_kv_heads keys, then
// n_kv_heads values, each head_dim wide. Rows are tokens of `batch` sequences of `seq` tokens each.
struct AttentionShape {
  std::int64_t batch = 0, seq = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0;

  std::int64_t tokens() const { return batch * seq; }
  std::int64_t width() const { return (n_heads + 2 * n_kv_heads) * head_dim; }
};

// Rotary embedding on all of head_dim, rotate-half pairing (i, i + head_dim / 2), angle = position *
// theta^(-2i/head_dim) with position = index in the sequence (Su et al., RoFormer, section 3.4). theta 0: no rotation.
struct Rope {
  float theta = 10000;
};

// How far a query is from a key before it, in `count` buckets (Raffel et al., T5, arXiv 1910.10683, section 2.1, for
// one direction). The first half hold a distance each. With e = count / 2 and m = max_distance, distance n >= e is in
// bucket
//   e + (count - e) log(n / e) / log(m / e), rounded down,
// or in the last one, which so holds all from a little before m on. count is even and m > e; count 0: no buckets.
struct RelativeBuckets {
  std::int64_t count = 0, max_distance = 0;

  // The least distance of a bucket; that of the next one where the bucket is empty.
  std::int64_t first(std::int64_t bucket) const {
    const std::int64_t exact = count / 2;
    if (bucket <= exact) return bucket;
    const double e = static_cast<double>(exact), part = static_cast<double>(bucket - exact) / e;
    const double least = e * std::pow(static_cast<double>(max_distance) / e, part);
    return static_cast<std::int64_t>(std::ceil(least * (1 - 1e-12)));  // what is whole stays so, whatever pow rounds
  }
};

// How T tokens with K choices each spread over E experts. A routing group is `group` consecutive tokens; in each, an
// expert takes at most `capacity` rows: all first choices before any second, in token order. capacity 0 = dropless.
// Padded (with a capacity only), each expert owns as many rows as it could take, so that nobody needs the counts to
// know where its rows are. The tokens are `parts` equal runs, of whole routing groups where there are several, and the
// rows of one run lie behind those of the other.
struct Placement {
  std::int64_t experts = 0, group = 0, capacity = 0;
  bool padded = false;
  std::int64_t parts = 1;
  std::int64_t members = 1;  // neighbouring experts that share one capacity, where admission is by priority

  // Rows that each expert owns of one part of so many consecutive tokens; 0 where the counts decide.
  std::int64_t owned(std::int64_t all_tokens) const {
    const std::int64_t tokens = all_tokens / parts;
    if (!padded || tokens == 0) return 0;
    if (tokens % group == 0) return tokens / group * capacity;
    const std::int64_t groups_met = group % tokens == 0 ? 1 : tokens / group + 2;
    return groups_met * capacity < tokens ? groups_met * capacity : tokens;
  }
  // N, the routed rows: all choices, or what the experts own.
  std::int64_t rows(std::int64_t tokens, std::int64_t choices) const {
    return padded && capacity > 0 ? parts * experts * owned(tokens) : tokens * choices;
  }
};

// Which of `groups` equal blocks of neighbouring experts a token may go to: the `met` whose `best` largest scores sum
// up to most, the lower index first among equals.
struct GroupLimit {
  std::int64_t groups = 1, met = 1, best = 1;
};

// Expert choice with a cap on the experts of a token: the linear programme of Zhou et al. (arXiv 2202.09368,
// section 3.2) with an entropy term, by rounds of Dykstra's projections. The entropy's weight falls to its own from 1,
// which 100 rounds of the last weight alone would be too few for.
struct ExpertCap {
  float experts = 0, entropy = 1e-3f;
  int rounds = 100;

  constexpr float entropy_in(int round) const {
    float weight = 1;
    for (int i = 0; i < round && weight > entropy; ++i) weight *= 0.93f;
    return weight > entropy ? weight : entropy;
  }
};

// Which elements of rows are dropped: column f of the row that is called id where the key's uniform number id * width +
// first + f is below the rate. So the parts of a row that several ranks have are parts of one mask.
struct DropoutMask {
  PhiloxKey key{};
  float rate = 0;
  std::int64_t width = 0, first = 0;  // columns of the whole row, and the first of these
};

// Who goes first where an expert has not room for all that chose it: all first choices before any second, in each those
// of higher score; or those of higher score, whichever choice they are.
enum class Priority { choice_then_score, score };

// What a router did with T tokens, added up over them. A choice of expert -1 is none.
struct RoutingSums {
  Tensor p_E;       // f32: probabilities
  Tensor kept_K;    // i32: choices of each rank that were not dropped
  Tensor gate_2;    // f32: weights of all choices, and of those that were dropped
  Tensor logit_1;   // f32: the largest |logit|; 0 of no tokens
  Tensor agreed_1;  // i32: tokens whose largest logit is that of the same expert before and now
};

// One parameter's share of an AdamW step, all f32 and of one shape. The compute copy may be empty.
struct AdamWTensors {
  Tensor param, m, v, grad;
  Weight* weight = nullptr;
  float weight_decay = 0;
};
struct AdamWStep {
  float lr = 0, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
  float bias1 = 1, bias2 = 1;  // 1 - beta^t
};

// The matrices of a parameter (Adafactor's, of its last two axes), whole, of which ranks may hold parts: in memory of
// numbers for every row and column, those of its first matrix begin at `row` and `column`, the others' behind them. A
// vector is one row, and has no number for that: `row` is -1.
struct Matrices {
  std::int64_t count, rows, columns;
  std::int64_t row, column;
  std::int64_t first;  // index of the first among those of all parameters

  std::int64_t numel() const { return rows * columns; }  // of one of them
};
// What a parameter's memory holds of its matrices: some lines of some of them, row-major.
struct MatrixBlock {
  std::int64_t matrix, matrices, line, lines, column, width;

  std::int64_t numel() const { return matrices * lines * width; }
};
// One parameter's share of an Adafactor step, all f32. `m` may be empty, and so may the compute copy.
struct AdafactorTensors {
  Tensor param, m, grad;
  Weight* weight = nullptr;
  float weight_decay = 0;
  Matrices matrices{};
  std::span<const MatrixBlock> blocks{};  // one after the other in memory
};
struct AdafactorStep {
  float lr = 0, beta1 = 0, beta2 = 0.99f, eps = 1e-30f;
  float clip = 1;         // largest root mean square of a matrix's update; 0 clips nothing
  float scale_floor = 0;  // above 0: lr is multiplied by the root mean square of the matrix, or this if that is less
};

// The backend contract: everything a device must be able to do, one line each. Outputs come first and are already
// allocated; inputs are const; shapes were checked by the caller. Kernels allocate no tensors and check nothing.
// A group of rows of the table is one file in cpu/ and one in cuda/.
// "rows" x_RD are f32 or bf16, all of one call alike; parameters, statistics and losses are f32; indices are i32.
// Shape letters: R rows, T tokens, D width, H heads, F feed-forward width, E experts, K choices, N routed rows, V
// words. Every kernel gives the same bits on every call with the same inputs and number of threads.
struct Kernels {
  // memory.cpp
  std::byte* (*system_allocate)(Device, std::size_t bytes);  // 64-byte aligned; null when there is none
  void (*system_release)(Device, std::byte*, std::size_t bytes);
  void (*zero)(Tensor& x);
  void (*copy)(Tensor& y, const Tensor& x);          // converts f32 <-> bf16; between devices: one of them the host
  void (*add)(Tensor& y, const Tensor& x);           // y += x; f32 or bf16 each, summed in f32
  void (*scale)(Tensor& x, const Tensor& factor_1);  // x *= factor, an f32 scalar on the device

  // matmul.cpp: c = op(a) op(b), or c += it; a and b alike, c of their type or f32
  void (*matmul)(Tensor& c, const Tensor& a, const Tensor& b, Trans ta, Trans tb, Into into);
  // weight.cpp: Trans::yes y_RO = x_RI w^T, Trans::no dx_RI = dy_RO w; y of x's type or f32
  PackedSize (*packed_size)(Shape weight, DType dtype);
  void (*pack)(Weight& w, const Tensor& master);
  void (*weight_matmul)(Tensor& y, const Tensor& x, const Weight& w, Trans tw);
  // grouped.cpp: rows [offsets[e], offsets[e + 1]) of x go with expert e; offsets_e1 is i32 (E + 1), on the
  // device or, which may spare a wait for it, in host memory. rows_each > 0: the caller knows that offsets[e] =
  // e rows_each, and offsets may be empty. A backend may use either.
  void (*grouped_matmul)(Tensor& y, const Tensor& x, const Weight& w_EOI, const Tensor& offsets_e1,
                         std::int64_t rows_each, Trans tw);
  void (*grouped_matmul_dw)(Tensor& dw_EOI, const Tensor& dy_RO, const Tensor& x_RI, const Tensor& offsets_e1,
                            std::int64_t rows_each, Into into);

  // rms_norm.cpp: y = x rstd w, rstd_R = 1 / sqrt(mean(x^2) + eps)
  void (*rms_norm)(Tensor& y_RD, Tensor& rstd_R, const Tensor& x_RD, const Tensor& w_D, float eps);
  void (*rms_norm_backward)(Tensor& dx_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& x_RD, const Tensor& w_D,
                            const Tensor& rstd_R);
  // sum = a + b, summed in f32 and rounded, and y = rms_norm(sum)
  void (*add_rms_norm)(Tensor& y_RD, Tensor& sum_RD, Tensor& rstd_R, const Tensor& a_RD, const Tensor& b_RD,
                       const Tensor& w_D, float eps);
  // dsum = dskip + rms_norm's dx, rounded before it is added; an empty dskip counts as zeros
  void (*add_rms_norm_backward)(Tensor& dsum_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& dskip_RD,
                                const Tensor& sum_RD, const Tensor& w_D, const Tensor& rstd_R);
  // rope.cpp: queries and keys of fused rows normed by head (where w is not empty) and rotated, values copied.
  // rstd is (T, n_heads + n_kv_heads). Without norms it is empty, and so is backward's x.
  void (*qk_norm_rope)(Tensor& y, Tensor& rstd, const Tensor& x, const Tensor& wq, const Tensor& wk, float eps,
                       AttentionShape shape, Rope rope);
  void (*qk_norm_rope_backward)(Tensor& dx, Tensor& dwq, Tensor& dwk, const Tensor& dy, const Tensor& x,
                                const Tensor& wq, const Tensor& wk, const Tensor& rstd, AttentionShape shape,
                                Rope rope);
  // attention.cpp: causal, scaled by 1/sqrt(head_dim), on fused rows; lse_BHT is the log-sum-exp of each query's
  // scores. bias_HB, f32, is added to the scores of a head by the bucket of their distance; it may be empty, and so is
  // dbias.
  void (*attention)(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const Tensor& bias_HB, AttentionShape shape,
                    RelativeBuckets buckets);
  void (*attention_backward)(Tensor& dqkv, Tensor& dbias_HB, const Tensor& dy, const Tensor& qkv, const Tensor& bias_HB,
                             const Tensor& y, const Tensor& lse_BHT, AttentionShape shape, RelativeBuckets buckets);
  // activation.cpp
  void (*activation)(Tensor& y, const Tensor& x, Activation kind);
  void (*activation_backward)(Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind);

  // rows.cpp: index -1 means no row, which reads as zeros
  void (*gather_rows)(Tensor& y_ND, const Tensor& x_RD, const Tensor& index_N);       // y may be of another float type
  void (*scatter_add_rows)(Tensor& y_RD, const Tensor& x_ND, const Tensor& index_N);  // y f32, in the order of N
  // y[t] = sum_k weight[t, k] x[slot[t, k]]; an empty weight counts as ones; summed in f32
  void (*combine_rows)(Tensor& y_TD, const Tensor& x_ND, const Tensor& slot_TK, const Tensor& weight_TK);
  // dx[slot[t, k]] = weight[t, k] dy[t], dweight[t, k] = x[slot[t, k]] . dy[t]; a row of dx has one slot at most, and
  // is zero without one. dweight may be empty, and x is then not read.
  void (*combine_rows_backward)(Tensor& dx_ND, Tensor& dweight_TK, const Tensor& dy_TD, const Tensor& x_ND,
                                const Tensor& slot_TK, const Tensor& weight_TK);

  // id[slot[t, k]] = x[t, k], or x[t, 0] where x has one column; -1 for rows that are no slot
  void (*scatter_ids)(Tensor& id_N, const Tensor& x_TK, const Tensor& slot_TK);

  // router.cpp, all f32
  void (*softmax)(Tensor& p_TE, Tensor& lse_T, const Tensor& logits_TE);
  void (*softmax_backward)(Tensor& dlogits_TE, const Tensor& dp_TE, const Tensor& p_TE);
  // the K largest of each row, largest first, the lower index first among equals; renormalised: divided by their sum
  void (*top_k)(Tensor& weight_TK, Tensor& expert_TK, const Tensor& p_TE, Renormalise);
  void (*top_k_backward)(Tensor& dp_TE, const Tensor& dweight_TK, const Tensor& weight_TK, const Tensor& expert_TK,
                         const Tensor& p_TE, Renormalise);
  // chosen_GKE: how many tokens of each group took expert e as k-th choice, before capacity; -1 is no choice
  void (*count_choices)(Tensor& chosen_GKE, const Tensor& expert_TK, Placement);
  // f[g, e] = sum_{k < counted} chosen[g, k, e] / tokens: each quotient rounded to f32, added in the order of k
  void (*choice_fractions)(Tensor& f_GE, const Tensor& chosen_GKE, std::int64_t counted, float tokens);
  // slot_TK: 0 for a choice that its expert has room for, -1 for one that is dropped, or none (-1). T holds whole
  // routing groups, and capacity > 0.
  void (*admit)(Tensor& slot_TK, const Tensor& expert_TK, Placement);
  // Stable grouping by part and expert, in token order within these, of any consecutive tokens. slot_TK holds what
  // admit gave where there is a capacity, and gets the row of each choice, -1 where dropped; token_N (N =
  // placement.rows(T, K)): the token of each row, -1 for a row that nobody took; count_PE: rows that each expert took
  // of each part. The rows that expert e took of part p begin at (p * E + e) * owned where padded, and then the gaps
  // behind them are -1; else each expert's begin where those of the one before end, and the tail of token_N is -1.
  void (*place)(Tensor& slot_TK, Tensor& token_N, Tensor& count_PE, const Tensor& expert_TK, Placement);
  // loss_1 = scale * sum_t sum_e f[t / group, e] p[t, e] and its gradient, times dloss_1
  void (*balance_loss)(Tensor& loss_1, const Tensor& p_TE, const Tensor& f_GE, float scale);
  void (*balance_loss_backward)(Tensor& dp_TE, const Tensor& dloss_1, const Tensor& f_GE, float scale);
  // loss_1 = scale * sum_t lse[t]^2 and its gradient by the logits, times dloss_1
  void (*z_loss)(Tensor& loss_1, const Tensor& lse_T, float scale);
  void (*z_loss_backward)(Tensor& dlogits_TE, const Tensor& dloss_1, const Tensor& lse_T, const Tensor& p_TE,
                          float scale);
  void (*entropy)(Tensor& sum_1, const Tensor& p_TE);  // sum_t -sum_e p log p
  // slot -1: the choice was dropped. before_TE, the logits of other router weights, may be empty: then nothing agrees.
  // Among equal logits the lower index is the largest.
  void (*observe_routing)(RoutingSums& sums, const Tensor& logits_TE, const Tensor& before_TE, const Tensor& p_TE,
                          const Tensor& weight_TK, const Tensor& expert_TK, const Tensor& slot_TK);

  // choices.cpp: further ways to choose experts and to be admitted
  // weight_TK: p of the given experts, renormalised or not; its gradient is top_k_backward
  void (*choose)(Tensor& weight_TK, const Tensor& expert_TK, const Tensor& p_TE, Renormalise);
  // score = p + bias (an empty one counts as zeros), and -inf for experts of groups that a token may not go to
  void (*selection_scores)(Tensor& score_TE, const Tensor& p_TE, const Tensor& bias_E, GroupLimit);
  // Every choice but the first becomes -1, none, unless weight > threshold * random (GShard's second expert).
  void (*thin_choices)(Tensor& expert_TK, const Tensor& weight_TK, const Tensor& random_TK, float threshold);
  // met_GD: how many tokens of each group chose any of the d-th block of experts, of D equal ones
  void (*count_meetings)(Tensor& met_GD, const Tensor& expert_TK, Placement);
  // bias += rate sign(mean - count): up where fewer than the mean of count_E came, down where more did
  void (*adjust_bias)(Tensor& bias_E, const Tensor& count_E, float rate);
  // What admit does, but by priority; token order decides among equals. score_TK may be (T, 1), one for all choices of
  // a token. A token chooses an expert once; where several share a capacity the priority is the score.
  void (*admit_by_priority)(Tensor& slot_TK, const Tensor& expert_TK, const Tensor& score_TK, Placement, Priority);
  // p + u_e + v_t by which A = min(1, e^(that / entropy)) is the A (tokens by experts, in each routing group on its
  // own) with most sum(A p) + entropy H(A) where sum_t A = capacity, sum_e A <= cap.experts and A <= 1: an expert takes
  // its best tokens by it. T holds whole routing groups.
  void (*capped_scores)(Tensor& score_TE, const Tensor& p_TE, Placement, ExpertCap);

  // scores.cpp, all f32: other ways to score experts, and the losses of these
  // s = 1 / (1 + e^-x) and share = s / sum_e s; dlogits from the gradients of both
  void (*sigmoid)(Tensor& s_TE, Tensor& share_TE, const Tensor& logits_TE);
  void (*sigmoid_backward)(Tensor& dlogits_TE, const Tensor& ds_TE, const Tensor& dshare_TE, const Tensor& s_TE);
  // sigma = softplus(raw) + floor and noisy = clean + sigma normal; draw from the gradients of both
  void (*noisy_logits)(Tensor& noisy_TE, Tensor& sigma_TE, const Tensor& clean_TE, const Tensor& raw_TE,
                       const Tensor& normal_TE, float floor);
  void (*noisy_logits_backward)(Tensor& draw_TE, const Tensor& dnoisy_TE, const Tensor& dsigma_TE, const Tensor& raw_TE,
                                const Tensor& normal_TE);
  // The probability that other noise would have an expert among the K chosen: Phi((clean - limit) / sigma), limit being
  // the K-th largest of the others' noisy logits. best (T, K + 1), value and expert: the largest noisy logits.
  void (*choice_probability)(Tensor& p_TE, const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                             const Tensor& best_expert);
  void (*choice_probability_backward)(Tensor& dclean_TE, Tensor& dsigma_TE, Tensor& dbest, const Tensor& dp_TE,
                                      const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                                      const Tensor& best_expert);
  // loss_1 = scale sum_g var(sum_g) / (mean(sum_g)^2 + 1e-10), over experts, and its gradient by sum_GE
  void (*squared_variation)(Tensor& loss_1, Tensor& dsum_GE, const Tensor& sum_GE, float scale);

  // cross_entropy.cpp: loss_R = lse - logit[target], dlogits = scale (softmax - onehot); target -1 counts nothing.
  // dlogits may be empty, or of the rows' type beside f32 logits.
  void (*cross_entropy)(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R,
                        float scale);
  // The same of words cut over P ranks, in two steps. part_R4: of this rank's logits, f32, the largest and the sum of
  // e^(logit - largest), and the target's logit and 1 where it is among them (target is its index here), else 0 and 0.
  void (*cross_entropy_part)(Tensor& part_R4, const Tensor& logits_RV, const Tensor& target_R);
  // part_PR4: of all ranks, in their order; a row whose target is nowhere counts nothing
  void (*cross_entropy_whole)(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R,
                              const Tensor& part_PR4, float scale);
  void (*sum)(Tensor& y_1, const Tensor& x, Into into);  // of all elements, f32 in, f32 out, summed in a fixed order

  // random.cpp: y[i] is number first + i of the key's uniform f32 numbers in (0, 1), four to each block of Philox
  void (*uniform)(Tensor& y, PhiloxKey key, std::uint64_t first);
  // y[i] is number first + i of the key's standard normal f32 numbers (Box-Muller), two to each block of Philox
  void (*normal)(Tensor& y, PhiloxKey key, std::uint64_t first);
  // y[i] = x[i] (1 - eps + 2 eps u), u the uniform number first + i; x and y f32
  void (*jitter)(Tensor& y, const Tensor& x, PhiloxKey key, std::uint64_t first, float eps);
  // y = x / (1 - rate), or 0 where dropped; row r is called id[order[r]], id[r] where order is empty, and left as it is
  // where that is -1
  void (*dropout)(Tensor& y_RF, const Tensor& x_RF, const Tensor& id_R, const Tensor& order_R, DropoutMask mask);

  // optimizer.cpp
  // p -= lr (m' / bias1 / (sqrt(v' / bias2) + eps) + decay p) with grad * grad_scale_1; writes the compute copy too.
  // Where grad_scale_1 is not finite nothing changes, so that a step may be launched before its loss is looked at.
  void (*adamw)(std::span<const AdamWTensors>, const AdamWStep&, const Tensor& grad_scale_1);
  void (*sum_squares)(Tensor& y_1, std::span<const Tensor> xs);  // f32 in and out, summed in a fixed order
  // min(1, clip / (norm + 1e-6)) for the norm whose square is the sum of `squares`; 1 for a clip of 0; a NaN where the
  // norm is not finite. In f64.
  void (*clip_factor)(Tensor& factor_1, const Tensor& squares, float clip);

  // adafactor.cpp: the stages of a step (optim/adafactor.h), between which ranks add up what each has of a matrix. With
  // g = grad * grad_scale_1, and u = factor[row] g factor[column]. Where grad_scale_1 is not finite none but `means`
  // and `squares` change.
  // Sums of g^2 over the elements here of each row and column, divided by the number of those anywhere. Numbers of
  // whatever is not here become zeros.
  void (*square_means)(Tensor& means, std::span<const AdafactorTensors>, const Tensor& grad_scale_1);
  // v = beta2 v + (1 - beta2) (mean + eps); then means become factors: 1 / sqrt(v) of a column, and of a row
  // 1 / sqrt(v / the mean of its matrix's v)
  void (*moment_factors)(Tensor& v, Tensor& means, std::span<const Matrices>, const AdafactorStep&,
                         const Tensor& grad_scale_1);
  // Of each matrix the sums of u^2 and of param^2, over the elements here
  void (*update_squares)(Tensor& squares_M2, std::span<const AdafactorTensors>, const Tensor& factors,
                         const Tensor& grad_scale_1);
  // With RMS from the sums and the size of a matrix: s = lr max(scale_floor, RMS(param)) u / max(1, RMS(u) / clip);
  // with an m, m = beta1 m + (1 - beta1) s, and s = m; p -= s + lr decay p; writes the compute copy too.
  void (*adafactor)(std::span<const AdafactorTensors>, const AdafactorStep&, const Tensor& factors,
                    const Tensor& squares_M2, const Tensor& grad_scale_1);
};

// The table of the device's backend. Asking for a GPU in a build without CUDA throws (Fault::usage).
const Kernels& kernels(Device device);

// Waits until the device has done what this thread asked of it. Kernels of the CPU have done it when they return.
void synchronize(Device device);

}  // namespace switchyard
