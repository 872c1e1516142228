#pragma once

#include <vector>

#include "dist/process_group.h"

namespace switchyard {

// The routing groups, `size` consecutive tokens each, that the `tokens` of this rank lie in. A group may lie over
// several ranks of the tensor group, whose tokens together are whole groups: these then tell each other what a whole
// group must know. Letters as in routing.h; A is the tokens of all these groups, T or those of the tensor group.
class RoutingGroups {
 public:
  // The tensor group outlives this.
  RoutingGroups(std::int64_t size, std::int64_t tokens, ProcessGroup& tensor);

  std::int64_t size() const { return size_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t number() const;  // at least 1
  // Where this rank's tokens begin among all().
  std::int64_t first() const { return spread_over() ? tokens_ * tensor_.rank() : 0; }
  // The ranks that the groups lie over, or null where this rank has whole ones.
  ProcessGroup* spread_over() const { return tokens_ % size_ == 0 ? nullptr : &tensor_; }
  // Rows of this rank's tokens -> rows of all tokens of the groups, and back.
  Tensor all(const Tensor& x_TK) const;
  Tensor own(const Tensor& x_AK) const;
  // Which of the groups each of this rank's tokens lies in.
  std::vector<std::int32_t> of_own_tokens() const;
  // A row for each group -> a row for each of equal parts of this rank's tokens, that of the group that it lies in.
  Tensor of_own_parts(const Tensor& x_GE) const;

 private:
  std::int64_t size_, tokens_;
  ProcessGroup& tensor_;
};

}  // namespace switchyard
