#pragma once

#include <cstdint>

#include "tensor/kernels.h"

namespace switchyard {

// Activations that backward computes again instead of finding them kept: of whole blocks, or of one piece of each.
enum class Recompute { none, block, attention, ffn };

// How attention tells positions apart: queries and keys turn with them (RoPE), or scores get a learnt bias by T5's
// buckets of distance, in each block its own (GLaM; T5's blocks share one).
enum class Positions { rope, relative_bias };

// The decoder-only transformer. Defaults compute what Hugging Face's Qwen3MoeForCausalLM computes.
struct ModelConfig {
  std::int64_t vocab_size = 258;
  std::int64_t d_model = 256;
  std::int64_t n_layers = 4;
  std::int64_t n_heads = 4;
  std::int64_t n_kv_heads = 0;  // 0: as many as n_heads
  std::int64_t head_dim = 0;    // 0: d_model / n_heads
  std::int64_t d_ff = 0;        // of dense blocks; 0: 8/3 d_model, up to a multiple of 64
  Activation activation = Activation::swiglu;
  bool qk_norm = true;
  bool tied_embeddings = true;
  double norm_eps = 1e-6;
  Positions positions = Positions::rope;
  double rope_theta = 10000;
  std::int64_t relative_buckets = 32;
  std::int64_t relative_max_distance = 128;
  double init_std = 0.02;

  template <class V>
  void describe(V& v) {
    v.field("vocab_size", vocab_size, "words of the vocabulary; at least the tokenizer's").between(2, 1 << 24);
    v.field("d_model", d_model, "width of the residual stream").between(1, 1 << 20);
    v.field("n_layers", n_layers, "transformer blocks").between(1, 4096);
    v.field("n_heads", n_heads, "query heads").between(1, 4096);
    v.field("n_kv_heads", n_kv_heads, "key and value heads; 0 means n_heads").between(0, 4096);
    v.field("head_dim", head_dim, "width of a head; 0 means d_model / n_heads").between(0, 1024);
    v.field("d_ff", d_ff, "feed-forward width of dense blocks; 0 means 8/3 d_model").between(0, 1 << 24);
    v.choice("activation", activation, "feed-forward non-linearity; the GLU forms have two input projections",
             {{"swiglu", Activation::swiglu},
              {"geglu", Activation::geglu},
              {"gelu", Activation::gelu},
              {"relu", Activation::relu}});
    v.field("qk_norm", qk_norm, "RMSNorm of each query and key head");
    v.field("tied_embeddings", tied_embeddings, "the output head is the embedding table");
    v.field("norm_eps", norm_eps, "epsilon of every RMSNorm").between(0, 1);
    v.choice("positions", positions,
             "rotary embedding, or a learnt bias of scores by T5's buckets of distance, in each block its own (GLaM)",
             {{"rope", Positions::rope}, {"relative_bias", Positions::relative_bias}});
    v.field("rope_theta", rope_theta, "base of the rotary embedding").between(1, 1e9);
    v.field("relative_buckets", relative_buckets, "biases of a head; half are of one distance each").between(2, 1024);
    v.field("relative_max_distance", relative_max_distance, "distance from which on all have the last bias")
        .between(2, 1 << 24);
    v.field("init_std", init_std, "standard deviation of initial weights").between(0, 10);
  }
};

}  // namespace switchyard
