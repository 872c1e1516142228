#pragma once

#include "autograd/ops.h"
#include "dist/process_group.h"
#include "layers/parameter_maker.h"

namespace switchyard {

// The words of a vocabulary, cut over the tensor group (Shoeybi et al., arXiv 1909.08053, section 3): of an embedding
// table and of a head each rank has the rows of its words.
class Vocabulary {
 public:
  // At least as many words as ranks, which need not divide them. The group outlives the graph.
  Vocabulary(std::int64_t words, ProcessGroup& tensor);

  // This rank's rows of the table, made and drawn as a part of the whole.
  Variable table(const std::string& name, std::int64_t d_model, Init init, ParameterMaker& make,
                 Replicas replicas = Replicas::data) const;

  // word_T: i32 (T), in host memory, of all the group's tokens -> this rank's T / ranks rows (D) of the table, as
  // `dtype`
  Variable embed(const Variable& table_VD, const Tensor& word_T, DType dtype) const;

  // As head_loss of the whole vocabulary, of all the group's tokens: x are this rank's rows of them, target_T (T, host)
  // everyone's, and so is token_loss_T. loss_1 counts this rank's rows alone, so that sums over ranks count each once;
  // gradients are those of everyone's.
  HeadLoss loss(const Variable& x_RD, const Variable& w_VD, const Tensor& target_T, float scale) const;

 private:
  Tensor mine(const Tensor& word_T) const;  // as indices here, -1 for other ranks' words

  std::int64_t words_, begin_, end_;
  ProcessGroup& tensor_;
};

}  // namespace switchyard
