// The two halves of a decoder layer. Each kind of attention and of FFN that a ModelSpec can name is
// one class here, composed of kernels and exchanges; the engine only knows these interfaces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/kv_type.h"
#include "kernels/stream.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"
#include "worker/device/device_buffer.h"
#include "worker/layers/batch.h"
#include "worker/layers/expert_exchange.h"
#include "worker/loader/rank_weights.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// Memory in equal pieces: number i is the `bytes` bytes from data + i * bytes on.
struct PieceArray {
  std::byte* data = nullptr;
  uint64_t bytes = 0;
};

// Everything that a layer keeps of the tokens of a KV block, by the block's number, and of a
// sequence, by its slot. Whoever copies all of it has copied the block, or the sequence's states.
struct KeptPieces {
  std::vector<PieceArray> of_block;
  std::vector<PieceArray> of_sequence;
};

// A sub-layer on one rank: y = f(x), complete on every rank of the data-parallel group when it
// returns (exchanges included).
// Owned and called by the rank's engine thread.
class SubLayer {
 public:
  virtual ~SubLayer() = default;
  // x and y: [T, hidden], distinct. Errors are those of the exchange.
  virtual absl::Status Forward(const Batch& batch, const float* x, float* y) = 0;
  // What it keeps between steps, in the cache and state that it was made with; nothing by default.
  virtual KeptPieces Kept() const { return {}; }
  // Whether other data-parallel groups need this rank's part of the layer: Forward() is then called
  // in every step that has rows of any group, without rows of its own perhaps.
  virtual bool ServesOtherGroups() const { return false; }
};

// Exchanges of a rank, borrowed by its layers.
struct RankGroups {
  Communicator* tp = nullptr;     // attention and dense FFN
  Communicator* group = nullptr;  // the ranks that hold the same tokens: sums of MoE layers
  // All ranks of the stage, which share the experts; null where they are one group.
  Communicator* stage = nullptr;
};

// Rows of cos and sin for positions 0 .. max_context_tokens - 1.
struct RopeTable {
  const float* cos = nullptr;  // [max_context_tokens, rotary_dim / 2]
  const float* sin = nullptr;
};

// Scratch that all layers of a rank share, sized for the widest of them and max_step_tokens rows.
// Contents live for one Forward() only.
struct LayerScratch {
  // [T, heads * head_dim], twice as much with an output gate; of lightning attention [T, heads * 3
  // * head_dim], of a gated delta net [T, key_heads * group_rows]; of latent attention [T, heads *
  // (nope + rope dims)], and when attention is done the heads' values [T, heads * value_head_dim].
  float* query = nullptr;
  float* latent_query = nullptr;  // [T, heads * kv_lora], of latent attention
  float* query_latent = nullptr;  // [T, q_lora], likewise
  // [T, kv_heads * head_dim], latents [T, kv_lora], lightning attention's output gate [T, heads *
  // head_dim], or what a gated delta net's convolution gave: queries, keys, values.
  float* key = nullptr;
  // [T, kv_heads * head_dim], rotated keys [T, rope_head_dim], or a gated delta net's gates.
  float* value = nullptr;
  float* attention = nullptr;     // [T, heads * head_dim], or in latent space [T, heads * kv_lora]
  float* norm_squares = nullptr;  // [T, norms], where norms span all heads (spread_norm.h)
  // Of latent attention with an indexer (position_selector.h).
  float* index_query = nullptr;     // [T, index_heads * index_head_dim]
  float* index_key = nullptr;       // [T, index_head_dim]
  float* index_weights = nullptr;   // [T, index_heads]
  uint32_t* index_slots = nullptr;  // [T, top_k]
  float* router_logits = nullptr;   // [T, experts]
  uint32_t* expert_ids = nullptr;   // [T, top_k]
  float* expert_weights = nullptr;  // [T, top_k]
  float* shared = nullptr;          // [T, hidden], where a layer has a shared expert
  ExpertExchangeScratch exchange;   // where there are several data-parallel groups
};

// Takes the scratch for `layout`'s layers out of `arena` (see Arena::Measure).
LayerScratch TakeLayerScratch(Arena& arena, const model::ModelSpec& spec,
                              const model::RankLayout& layout, uint32_t max_step_tokens);

// One layer's KV cache on one rank: its arrays of blocks (KvTokenBytesOf() in
// model/plan/attention_shape.h), one behind the other.
struct LayerCache {
  std::byte* data = nullptr;
  KvType type = KvType::kBFloat16;
  uint32_t num_blocks = 0;
  uint32_t block_tokens = 0;
  bool window = false;  // the blocks are those of Batch::window_sequences
};

// What both halves of layer `index` (within layout.layers) are made from; all borrowed.
struct LayerInputs {
  const model::ModelSpec* spec;
  const model::RankLayout* layout;
  uint32_t index;
  const LayerWeights* weights;
  RankGroups groups;
  LayerScratch scratch;
  RopeTable rope;
  // The layer's part of the KV cache, as the kind of its attention divides it; the storage's first
  // byte is cache-line aligned.
  LayerCache cache;
  // StateFloatsPerSequence() for each of `state_slots` sequences and snapshots, likewise; null
  // where the layer keeps none.
  float* state = nullptr;
  uint32_t state_slots = 0;
  kernels::Stream* stream;
};

// The end of an attention layer: y = output projection of scratch.attention ([T, width]), added
// over the tensor-parallel group. The bias, which one rank of the group holds, is in the sum once.
absl::Status ProjectOutput(const LayerInputs& inputs, const Batch& batch, uint32_t width, float* y);

std::unique_ptr<SubLayer> MakeAttentionLayer(const LayerInputs& inputs);
std::unique_ptr<SubLayer> MakeFfnLayer(const LayerInputs& inputs);

}  // namespace essor::worker
