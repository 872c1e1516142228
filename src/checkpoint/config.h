#pragma once

#include <cstdint>

namespace switchyard {

struct CheckpointConfig {
  std::int64_t every = 500;
  std::int64_t keep = 3;
  bool async = true;

  template <class V>
  void describe(V& v) {
    v.field("every", every, "steps between checkpoints; 0 saves only at the end").between(0, 1'000'000'000);
    v.field("keep", keep, "newest checkpoints to keep; older ones are deleted").between(1, 1'000'000);
    v.field("async", async, "write in the background from a copy in host memory; false waits and takes no copy");
  }
};

}  // namespace switchyard
