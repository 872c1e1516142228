#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "moe/router_config.h"
#include "tensor/kernels.h"

namespace switchyard {

enum class Dispatch { automatic, exact, padded };  // which rows travel to the experts
enum class Overlap { automatic, on, off };         // whether rows travel while experts compute

// Experts, which blocks have them, and the router in front of them, which is a section of its own.
struct MoeConfig {
  std::int64_t experts = 8;
  std::int64_t d_ff = 0;                   // 0: as the dense blocks
  std::optional<Activation> activation{};  // none: as the dense blocks
  std::int64_t shared_experts = 0;
  double expert_dropout = 0;

  // placement: an explicit list wins over the rest
  std::vector<std::int64_t> layers{};
  std::int64_t every = 2;
  std::int64_t first_dense = 0;

  Dispatch dispatch = Dispatch::automatic;
  Overlap overlap = Overlap::automatic;
  RouterConfig router{};

  template <class V>
  void describe(V& v) {
    v.field("experts", experts, "experts of an MoE block; 0 makes the model dense").between(0, 65536);
    v.field("d_ff", d_ff, "feed-forward width of an expert; 0 means model.d_ff").between(0, 1 << 24);
    v.choice("activation", activation,
             "feed-forward non-linearity of experts, shared ones too; auto means model.activation",
             {{"auto", std::nullopt},
              {"swiglu", Activation::swiglu},
              {"geglu", Activation::geglu},
              {"gelu", Activation::gelu},
              {"relu", Activation::relu}});
    v.field("shared_experts", shared_experts, "experts besides that every token goes to, with weight 1 (DeepSeek)")
        .between(0, 1024);
    v.field("expert_dropout", expert_dropout,
            "training drops this share of the experts' hidden features (Switch, fine-tuning: 0.4)")
        .between(0, 0.99);
    v.field("layers", layers, "the MoE blocks, counted from 0; empty means by `every` and `first_dense`");
    v.field("every", every, "every n-th block is MoE: 2 gives dense, MoE, dense, MoE (GLaM)").between(1, 4096);
    v.field("first_dense", first_dense, "this many blocks from the first on stay dense").between(0, 4096);
    v.choice(
        "dispatch", dispatch,
        "rows that travel to the experts: exact, those that were kept, whose numbers the host must read; padded, as "
        "many as the capacity allows, so that it need not; auto pads on a GPU",
        {{"auto", Dispatch::automatic}, {"exact", Dispatch::exact}, {"padded", Dispatch::padded}});
    v.choice(
        "overlap", overlap,
        "rows travel to experts and back in two halves, one while experts compute on the other, where a rank has an "
        "even number of whole routing groups; auto: where they travel between GPUs through NCCL",
        {{"auto", Overlap::automatic}, {"on", Overlap::on}, {"off", Overlap::off}});
  }
};

}  // namespace switchyard
