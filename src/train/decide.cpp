#include "train/decide.h"

namespace switchyard {

std::vector<Decisions> decide(Pipeline& model, MicroBatch batch) {
  NoGrad guard;
  batch.pass.record = true;
  std::vector<Decisions> blocks;
  for (const RoutingStats& stats : model.forward(batch).stats) {
    SY_CHECK(stats.decided, "decide: MoE block ", blocks.size(), " is of another stage");
    const auto& [logits_TE, expert_TK, slot_TK] = *stats.decided;
    blocks.push_back({logits_TE ? to_device(logits_TE, Device{}) : Tensor(), to_device(expert_TK, Device{}),
                      to_device(slot_TK, Device{})});
  }
  return blocks;
}

}  // namespace switchyard
