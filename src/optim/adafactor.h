#pragma once

#include "optim/matrix_index.h"
#include "optim/optimizer.h"

namespace switchyard {

// Adafactor (Shazeer and Stern, arXiv 1804.04235, algorithms 4 to 6) on f32 masters: of the second moments of a matrix
// only the means of its rows and of its columns are kept. With g the scaled gradient, t the updates done, this one
// among them, and beta2_t = min(beta2, 1 - t^-0.8):
//   r = beta2_t r + (1 - beta2_t) (mean over columns of g^2 + eps), and c likewise over rows
//   u = g / sqrt(r c / mean(r))                         of a vector, which is not factored, g / sqrt(c)
//   s = lr max(scale_floor, RMS(p)) u / max(1, RMS(u) / update_clip)
//   m = beta1 m + (1 - beta1) s                         where beta1 > 0; else m = s
//   p -= m + lr decay p
// A scale_floor or update_clip of 0 leaves that factor out. Only parameters with Decay::yes decay.
//
// A matrix is the last two axes of a logical tensor, whole and however ranks hold it: RMS, r and c are of each expert
// by itself (T5X's batched axes: Roberts et al., arXiv 2203.17189; Mesh TensorFlow takes the RMS of all experts
// together), and a fused projection (queries, keys and values; gate and up) is one matrix. Matrices of any size are
// factored. Ranks that hold parts of a matrix add up the means of squares, and then the squares of updates: every
// layout gives the same steps to f32 rounding, and all of these ranks keep the same r and c.
class Adafactor : public Optimizer {
 public:
  // Both outlive it.
  Adafactor(Shards& shards, Mesh& mesh, const OptimConfig& config);

  // Of each parameter "exp_avg_sq_row" and "exp_avg_sq_col", (rows) and (columns) behind the leading axis, or a
  // vector's "exp_avg_sq"; then, where beta1 > 0, "exp_avg" of each master.
  std::vector<OptimizerState> states() const override;

 private:
  struct Master {
    Parameter parameter;
    Matrices matrices;
    std::vector<MatrixBlock> blocks;
    Tensor m;  // empty for a beta1 of 0
  };

  void update(double lr, const Tensor& grad_scale_1) override;

  const Parameters& whole_;
  Mesh& mesh_;
  Masters masters_;
  OptimConfig config_;
  MatrixIndex index_;
  std::vector<Master> held_;
  Tensor v_;        // r and c of every matrix, in the order of the index
  Tensor factors_;  // of the step: means of squares, then 1 / sqrt of what v_ makes of them
  Tensor squares_;  // of the step, of each matrix: sums of u^2 and of p^2
};

}  // namespace switchyard
