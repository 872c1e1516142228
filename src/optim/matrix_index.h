#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "dist/shards.h"
#include "tensor/kernels.h"

namespace switchyard {

// The matrices of the parameters of which a rank holds parts: the last two axes of each; a leading one counts them
// (experts). What is known of each row and column, and of each matrix, lies side by side in memory, in the same order
// on all ranks that hold parts of the same ones.
class MatrixIndex {
 public:
  // What this rank's boxes touch, of each parameter all from the first such matrix to the last.
  explicit MatrixIndex(const Parameters& whole);

  std::int64_t numbers() const { return ends_.back().numbers; }    // rows and columns of all
  std::int64_t matrices() const { return ends_.back().matrices; }  // of all
  // In the parameters' order.
  const std::vector<Matrices>& all() const { return all_; }
  // The first of a parameter's matrices here, among those of the logical tensor.
  std::int64_t first_held(std::size_t parameter) const { return first_held_[parameter]; }

  // The parameter that a master is, or a part of.
  const Matrices& of(const Parameter& master) const { return all_[place_.at(master.name)]; }
  std::vector<MatrixBlock> blocks(const Parameter& master) const;

  // Sums over ranks what they have of their own parts, a number for each row and column, or a line for each matrix: all
  // that hold parts of a matrix get the same bits. With Masters::whole those are the ranks that a layer or an expert is
  // cut over, with Masters::own also those that share it out. At most two all-reduces, or five; those of one rank are
  // none.
  void sum_numbers(Tensor& x, Mesh& mesh, Masters masters) const;
  void sum_matrices(Tensor& x, Mesh& mesh, Masters masters) const;

 private:
  // Parameters of one kind of replicas lie next to each other, so that they travel together.
  static constexpr std::array kKinds{Replicas::tokens, Replicas::data, Replicas::ends, Replicas::expert_data};
  struct End {
    std::int64_t numbers = 0, matrices = 0;
  };

  void sum(Tensor& x, std::int64_t End::*unit, Mesh& mesh, Masters masters) const;

  std::vector<Matrices> all_;             // by parameter
  std::vector<std::int64_t> first_held_;  // by parameter
  std::map<std::string, std::size_t> place_;
  std::array<End, kKinds.size() + 1> ends_{};  // where each kind begins, and the last ends
};

}  // namespace switchyard
