#include "train/memory_plan.h"

#include <algorithm>

namespace switchyard {

MemoryPlan plan_memory(const Config& c, int stage, const Stage& blocks, const StatePlan& state,
                       const ActivationPlan& activations, const Assumptions& assumptions) {
  const std::int64_t parts = c.train.global_batch / (c.train.micro_batch * c.parallel.data);
  const std::int64_t tied_table =
      c.model.tied_embeddings && blocks.begin == 0 && blocks.end == c.model.n_layers ? state.table_gradient : 0;
  // Gradients when the last micro-batch's backward pass begins and when it ends; the parts of a step add up.
  const bool adds_up = parts > 1, leaves = !adds_up && c.parallel.shard_optimizer;
  const std::int64_t most = (leaves ? std::min(state.gradients, state.leaving_gradients) : state.gradients),
                     gradients = most + (adds_up ? std::max(tied_table, state.largest_gradient) : tied_table);

  std::int64_t kept = activations.ends;
  for (const bool is_moe : state.is_moe) kept += activations.kept(is_moe);
  // 1F1B: so many micro-batches have gone forward and not back.
  const std::int64_t in_flight = std::min<std::int64_t>(c.parallel.pipeline - stage, parts),
                     others = (in_flight - 1) * kept;
  std::int64_t peak = kept + activations.head, moment = peak + (adds_up ? state.gradients : state.head_gradient),
               arrived = state.head_gradient;
  for (std::size_t b = state.is_moe.size(); b-- > 0;) {
    const bool moe = state.is_moe[b];
    const std::int64_t now = kept + activations.more(moe), of_block = state.block_gradients[b];
    peak = std::max(peak, now);
    // Of the block's own gradients the output projection's is there, about a third.
    moment = std::max(moment, now + (adds_up ? state.gradients : std::min(arrived + of_block / 3, most)));
    arrived += of_block;
    kept -= activations.kept(moe);
  }

  // Without a GPU sums of rows pass through scratch memory.
  const bool has_scratch = assumptions.device == DeviceType::cpu && c.parallel.tensor > 1;
  const std::int64_t communication =
      std::max(state.communication, has_scratch ? std::min(c.parallel.tensor * activations.row, kSummedPiece) : 0);

  MemoryPlan plan;
  const auto set = [&](Memory kind, std::int64_t bytes) { plan.bytes[static_cast<std::size_t>(kind)] = bytes; };
  set(Memory::parameters, state.parameters);
  set(Memory::gradients, gradients);
  set(Memory::optimizer, state.optimizer);
  set(Memory::activations, others + peak);
  set(Memory::checkpoint, state.checkpoint);
  set(Memory::communication, communication);
  plan.together = state.parameters + state.optimizer +
                  std::max(others + moment, gradients + communication + activations.ends + activations.row) +
                  (assumptions.device == DeviceType::cpu ? state.checkpoint : 0);
  return plan;
}

MemoryPlan plan_memory(const Config& c, const Assumptions& assumptions) {
  const std::vector<Stage> stages = cut_into_stages(c.model, c.moe, c.train.seq_len, c.parallel.pipeline);
  MemoryPlan most;
  for (int s = 0; s < c.parallel.pipeline; ++s) {
    const Stage& blocks = stages[static_cast<std::size_t>(s)];
    const MemoryPlan plan = plan_memory(c, s, blocks, plan_state(c, blocks, c.parallel.tensor - 1, assumptions),
                                        plan_activations(c, blocks, assumptions), assumptions);
    if (plan.together > most.together) most = plan;
  }
  return most;
}

}  // namespace switchyard
