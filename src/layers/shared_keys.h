#pragma once

#include "autograd/variable.h"
#include "dist/process_group.h"

namespace switchyard {

// The ranks of the tensor group that use the same key head, where there are fewer such heads than ranks; else only this
// rank. Every rank of the group calls, and n_kv_heads divides the group's size or is divided by it.
std::unique_ptr<ProcessGroup> make_key_sharers(std::int64_t n_kv_heads, ProcessGroup& tensor);

// Columns of one row of a rank's fused projection: queries, then keys, then as many values.
struct KeyColumns {
  std::int64_t queries = 0, keys = 0;
};

// Where fewer key heads than ranks are, each rank projects to its part of the columns of one head, and here fetches the
// others of that head from the ranks that it shares it with: rows [q | k | v] become [q | k of all | v of all].
// Parameters stay cut over all ranks, and backward sums the gradients of the keys that several ranks used.
class SharedKeys {
 public:
  // The keys divide the queries where there are sharers. The group outlives the graph.
  SharedKeys(KeyColumns mine, ProcessGroup& sharers) : mine_(mine), sharers_(sharers) {}

  // qkv (T, queries + 2 keys) -> (T, queries + 2 sharers keys)
  Variable operator()(const Variable& qkv) const;

 private:
  KeyColumns mine_;
  ProcessGroup& sharers_;
};

}  // namespace switchyard
