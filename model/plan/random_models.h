// Random small models and plans for property tests; seeded.
#pragma once

#include <cstdint>
#include <random>
#include <utility>

#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"

namespace essor::model {

class RandomModels {
 public:
  explicit RandomModels(uint64_t seed) : random_(seed) {}

  uint32_t Between(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }
  bool Coin() { return Between(0, 1) == 1; }

  LatentAttention Latent() {
    return {.num_heads = Between(1, 12),
            .q_lora_rank = 32 * Between(0, 2),
            .kv_lora_rank = 32 * Between(1, 3),
            .nope_head_dim = 8 * Between(1, 5),
            .rope_head_dim = 8 * Between(1, 2),
            .value_head_dim = 32 * Between(1, 2)};
  }

  LightningAttention Lightning() {
    const uint32_t heads = Between(1, 12);
    return {.num_heads = heads,
            .head_dim = 32 * Between(1, 2),
            .slopes = std::vector<double>(heads, 0.5)};
  }

  GatedDeltaNet DeltaNet() {
    const uint32_t key_heads = Between(1, 6);
    return {.num_key_heads = key_heads,
            .num_value_heads = key_heads * Between(1, 3),
            .key_head_dim = 8 * Between(1, 3),
            .value_head_dim = 32 * Between(1, 2),
            .conv_taps = Between(1, 4)};
  }

  // With an indexer now and then.
  LatentAttention AnyLatent() {
    LatentAttention attention = Latent();
    if (attention.q_lora_rank == 0 || Coin()) return attention;
    attention.indexer = SparseIndexer{
        .num_heads = Between(1, 5), .head_dim = 8 * Between(2, 4), .top_k = Between(1, 300)};
    return attention;
  }

  // Heads that do not divide evenly, odd widths, either kind of attention, dense and MoE layers
  // mixed, tied or not.
  ModelSpec Spec() {
    ModelSpec spec{.family = "random",
                   .hidden_size = 8 * Between(1, 6),
                   .vocab_size = Between(40, 700),
                   .max_context_tokens = 256,
                   .tied_embeddings = Coin()};
    constexpr QkNorm kNorms[] = {QkNorm::kNone, QkNorm::kPerHead, QkNorm::kFullWidth};
    GroupedQueryAttention attention{.num_kv_heads = Between(1, 5),
                                    .head_dim = 32 * Between(1, 2),
                                    .qkv_bias = Coin(),
                                    .output_bias = Coin(),
                                    .qk_norm = kNorms[Between(0, 2)],
                                    .sinks = Coin()};
    attention.num_heads = attention.num_kv_heads * Between(1, 5);
    // A shared expert may have fewer pieces than a stage has ranks.
    const MoeFfn moe{.num_experts = Between(1, 9),
                     .top_k = 1,
                     .intermediate_size = 32 * Between(1, 9),
                     .shared_intermediate_size = Coin() ? 0 : 32 * Between(1, 4),
                     .router = {.correction_bias = Coin(), .logit_bias = Coin()},
                     .expert_bias = Coin()};
    const DenseFfn dense{.intermediate_size = 32 * Between(1, 12)};
    const bool mixed = Coin();
    const AttentionSpec kind = Between(0, 3) == 0 ? AttentionSpec(AnyLatent()) : attention;
    AttentionSpec other = kind;
    const uint32_t choice = Between(0, 5);
    if (choice == 0) other = Lightning();
    if (choice == 1) other = DeltaNet();
    for (uint32_t layer = 0, end = Between(1, 9); layer < end; ++layer) {
      LayerSpec parts{.attention = Coin() ? kind : other, .ffn = moe};
      if (mixed && Coin()) parts.ffn = dense;
      spec.layers.push_back(parts);
    }
    return spec;
  }

  // dp x tp and ep of which one is a multiple of the other; not necessarily valid for a model.
  ParallelPlan Plan() {
    ParallelPlan plan{.pp = Between(1, 4), .dp = Coin() ? 1 : Between(2, 3), .tp = Between(1, 6)};
    const uint32_t factor = Between(1, 3);
    if (Coin()) {
      plan.ep = plan.dp * plan.tp * factor;
    } else {
      plan.ep = plan.tp;
      plan.tp *= factor;
    }
    return plan;
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace essor::model
