#pragma once

#include "data/eval_loader.h"
#include "model/pipeline.h"

namespace switchyard {

struct Evaluation {
  double loss = 0;  // mean cross-entropy, nats a token; no row was dropped
  std::int64_t targets = 0;
};

// Over all samples, `chunk` of them a rank at a time. Every rank calls; all get the same numbers, which do not depend
// on how many ranks there are beyond rounding.
Evaluation evaluate(Pipeline& model, const EvalLoader& data, std::int64_t chunk, std::int64_t seq_len,
                    const Mesh& mesh);

}  // namespace switchyard
