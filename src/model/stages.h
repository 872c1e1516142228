#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "moe/config.h"

namespace switchyard {

// The blocks [begin, end) that one stage of a pipeline holds.
struct Stage {
  std::int64_t begin, end;

  std::int64_t blocks() const { return end - begin; }
  bool operator==(const Stage&) const = default;
};

// All blocks in order, at least one a stage, so that the slowest stage is as fast as can be: cost is a token's model
// FLOPs (model/count.h), of which the last stage also has the head's. Where several cuts are as good the first stages
// get less, for they keep the activations of more micro-batches. Both configurations resolved; at least as many blocks
// as stages.
std::vector<Stage> cut_into_stages(const ModelConfig& model, const MoeConfig& moe, std::int64_t seq_len, int stages);

}  // namespace switchyard
