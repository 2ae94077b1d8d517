// The weights of one rank, packed for the kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear.h"
#include "kernels/packed_matrix.h"
#include "worker/device/device_buffer.h"

namespace essor::worker {

// Of latent attention's indexer; see model::WeightRole.
struct IndexerWeights {
  kernels::PackedMatrix query;           // [index_heads * index_head_dim, q_lora]
  kernels::PackedMatrix key;             // [index_head_dim, hidden]
  const float* key_norm = nullptr;       // [index_head_dim]
  const float* key_norm_bias = nullptr;  // [index_head_dim]
  kernels::PackedMatrix weights;         // [index_heads, hidden], float32
};

// What latent attention has besides query and output; see model::WeightRole.
struct LatentWeights {
  kernels::PackedMatrix query_down;             // [q_lora, hidden]; n = 0 without query latent
  const float* query_down_norm = nullptr;       // [q_lora]
  kernels::PackedMatrix latent_down;            // [kv_lora, hidden]
  kernels::PackedMatrix rope_key;               // [rope_head_dim, hidden]
  const float* latent_norm = nullptr;           // [kv_lora]
  std::vector<kernels::PackedMatrix> key_up;    // of the rank's heads: [kv_lora, nope_head_dim]
  std::vector<kernels::PackedMatrix> value_up;  // likewise: [value_head_dim, kv_lora]
  IndexerWeights indexer;                       // where there is one
};

// What linear attention has besides output; see model::WeightRole.
struct LinearAttentionWeights {
  // Lightning: [heads * 3 * head_dim, hidden]; delta net: [key_heads * group_rows, hidden].
  kernels::PackedMatrix input;
  kernels::PackedMatrix output_gate;  // lightning: [heads * head_dim, hidden]
  const float* norm = nullptr;        // lightning: [heads * head_dim]; delta net: [value_head_dim]

  kernels::PackedMatrix delta_gates;    // [2 * value_heads, hidden], likewise the rest
  const float* query_filter = nullptr;  // [key_heads * key_head_dim, taps]
  const float* key_filter = nullptr;    // likewise
  const float* value_filter = nullptr;  // [value_heads * value_head_dim, taps]
  const float* decay_rate = nullptr;    // [value_heads]
  const float* decay_bias = nullptr;    // [value_heads]
};

// Vectors are float32 whatever the checkpoint stores; null where the model has none. Matrices are
// the rank's slices: their n and k are those of the slice.
struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  kernels::PackedMatrix query;            // [heads * head_dim, hidden]
  kernels::PackedMatrix key;              // [kv_heads * head_dim, hidden]
  kernels::PackedMatrix value;            // [kv_heads * head_dim, hidden]
  kernels::PackedMatrix output;           // [hidden, heads * head_dim]
  LatentWeights latent;                   // of latent attention, whose query may read a latent
  LinearAttentionWeights linear;          // of linear attention
  const float* query_bias = nullptr;
  const float* key_bias = nullptr;
  const float* value_bias = nullptr;
  const float* output_bias = nullptr;
  const float* sinks = nullptr;                // [heads]
  const float* query_norm = nullptr;           // [head_dim], or [heads * head_dim]
  const float* key_norm = nullptr;             // [head_dim], or [kv_heads * head_dim]
  const float* ffn_norm = nullptr;             // [hidden]
  const float* attention_post_norm = nullptr;  // [hidden]
  const float* ffn_post_norm = nullptr;        // [hidden]
  kernels::GatedFfnWeights dense;              // of a dense layer; else the shared expert's
  kernels::PackedMatrix router;                // [experts of the model, hidden], float32
  const float* router_bias = nullptr;          // [experts of the model], as is the next
  const float* router_logit_bias = nullptr;
  kernels::PackedMatrix shared_gate;              // [1, hidden], float32; n = 0 without
  std::vector<kernels::GatedFfnWeights> experts;  // the rank's experts, ascending
};

// A layer that guesses ahead: a layer like the others, what it takes and what its output goes
// through. Nothing runs these yet.
struct DraftLayerWeights {
  kernels::PackedMatrix embedding;        // vocabulary slice; n = 0: the model's own
  const float* embedding_norm = nullptr;  // [hidden]
  const float* hidden_norm = nullptr;     // [hidden]
  kernels::PackedMatrix input;            // [hidden, 2 * hidden]
  LayerWeights layer;
  const float* final_norm = nullptr;  // [hidden]
  kernels::PackedMatrix head;         // vocabulary slice; n = 0: the model's own
};

// Immutable once loaded. Owns all memory it points to.
struct RankWeights {
  DeviceBuffer storage;
  kernels::PackedMatrix embedding;  // vocabulary slice; n = 0 where the rank needs none
  kernels::PackedMatrix head;       // likewise; the embedding's again when tied
  const float* final_norm = nullptr;
  std::vector<LayerWeights> layers;
  std::vector<DraftLayerWeights> draft_layers;  // of the last stage, where they are loaded
};

}  // namespace essor::worker
