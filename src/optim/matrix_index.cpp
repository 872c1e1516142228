#include "optim/matrix_index.h"

#include <algorithm>

namespace switchyard {
namespace {

// Extents and origin along the axes (matrix, line, column), those that a tensor does not have being 1 and 0.
std::int64_t extent(const Shape& shape, int axis) {
  const int at = axis - 3 + shape.rank();
  return at < 0 ? 1 : shape[at];
}
std::int64_t begin(const Box& box, int axis) {
  const int at = axis - 3 + box.shape.rank();
  return at < 0 ? 0 : box.origin[static_cast<std::size_t>(at)];
}

}  // namespace

MatrixIndex::MatrixIndex(const Parameters& whole) : all_(whole.size()), first_held_(whole.size()) {
  End end;
  for (std::size_t kind = 0; kind < kKinds.size(); ++kind) {
    ends_[kind] = end;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      const Parameter& p = whole[i];
      if (p.replicas != kKinds[kind]) continue;
      SY_CHECK(p.global_shape.rank() <= 3, p.name, ": matrices of a tensor ", p.global_shape);
      std::int64_t first = extent(p.global_shape, 0), last = 0;
      for (const Box& box : p.boxes) {
        first = std::min(first, begin(box, 0));
        last = std::max(last, begin(box, 0) + extent(box.shape, 0));
      }
      const bool has_rows = p.global_shape.rank() > 1;
      Matrices& m = all_[i];
      m = {.count = std::max<std::int64_t>(last - first, 0),
           .rows = extent(p.global_shape, 1),
           .columns = extent(p.global_shape, 2),
           .row = has_rows ? end.numbers : -1,
           .column = 0,
           .first = end.matrices};
      if (has_rows) end.numbers += m.count * m.rows;
      m.column = end.numbers;
      end.numbers += m.count * m.columns;
      end.matrices += m.count;
      first_held_[i] = first;
      place_[p.name] = i;
    }
  }
  ends_.back() = end;
  SY_CHECK(place_.size() == whole.size(), "matrices of parameters that only one rank holds, or two of one name");
}

std::vector<MatrixBlock> MatrixIndex::blocks(const Parameter& master) const {
  const std::int64_t first = first_held_[place_.at(master.name)];
  std::vector<MatrixBlock> blocks;
  for (const Box& box : master.boxes)
    blocks.push_back({.matrix = begin(box, 0) - first,
                      .matrices = extent(box.shape, 0),
                      .line = begin(box, 1),
                      .lines = extent(box.shape, 1),
                      .column = begin(box, 2),
                      .width = extent(box.shape, 2)});
  return blocks;
}

void MatrixIndex::sum(Tensor& x, std::int64_t End::*unit, Mesh& mesh, Masters masters) const {
  enum { tokens, data, ends, experts, all };  // as kKinds has them
  const auto sum_kinds = [&](int from, int to, ProcessGroup& group) {
    Tensor part = x.rows(ends_[static_cast<std::size_t>(from)].*unit, ends_[static_cast<std::size_t>(to)].*unit);
    if (part.numel() > 0) group.all_reduce(part, Reduce::sum);
  };
  // Shares of what no layer cuts lie on all that see different tokens: first those of equal cuts are added, then cuts.
  if (masters == Masters::own) {
    sum_kinds(tokens, ends, *mesh.data);
    sum_kinds(ends, experts, *mesh.ends);
    sum_kinds(experts, all, *mesh.expert_data);
  }
  sum_kinds(masters == Masters::own ? tokens : data, experts, *mesh.tensor);
  sum_kinds(experts, all, *mesh.expert_tensor);
}

void MatrixIndex::sum_numbers(Tensor& x, Mesh& mesh, Masters masters) const { sum(x, &End::numbers, mesh, masters); }
void MatrixIndex::sum_matrices(Tensor& x, Mesh& mesh, Masters masters) const { sum(x, &End::matrices, mesh, masters); }

}  // namespace switchyard
