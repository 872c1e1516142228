#include "ranks.h"

namespace switchyard::test {

void on_ranks(const std::vector<int>& sizes, const std::function<void(ProcessGroup& group)>& body) {
  for (int size : sizes) {
    if (size == 1) body(*make_self_group());
    run_ranks(size, body);
  }
}

}  // namespace switchyard::test
