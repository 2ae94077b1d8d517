// A model as data: what each layer is, in which sizes. Families (one file each in this folder) map
// a Hugging Face config.json to it; the planner, the loader and the engine read only this. A new
// mathematical building block is a new alternative here plus a layer in worker/layers; a new family
// that combines known blocks is one new file in this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/dtype.h"
#include "common/ids.h"

namespace essor::model {

// Rotary position embedding. Frequencies: theta^(-2i/rotary_dim), then scaled.
struct RopeSpec {
  struct Llama3Scaling {  // transformers modeling_rope_utils, rope_type "llama3"
    double factor = 1;
    double low_freq_factor = 1;
    double high_freq_factor = 1;
    double original_max_position = 1;
    bool operator==(const Llama3Scaling&) const = default;
  };
  struct LinearScaling {
    double factor = 1;
    bool operator==(const LinearScaling&) const = default;
  };
  struct YarnScaling {  // arXiv 2309.00071
    double factor = 1;
    double beta_fast = 32;
    double beta_slow = 1;
    double original_max_position = 1;
    double attention_factor = 1;  // multiplies cos and sin
    // DeepSeek's mscale_all_dim as a magnitude: families that heed it multiply queries and keys by
    // it, that is the softmax scale by its square. 1 without the key.
    double score_magnitude = 1;
    bool truncate = true;  // round the correction range to whole dimensions
    bool operator==(const YarnScaling&) const = default;
  };
  double theta = 10000.0;
  uint32_t rotary_dim = 0;   // leading dims of a head that rotate; 0 = no positions
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + rotary_dim/2)
  std::variant<std::monostate, LinearScaling, Llama3Scaling, YarnScaling> scaling = {};
  bool operator==(const RopeSpec&) const = default;
};

// RMSNorm of queries and keys.
enum class QkNorm {
  kNone,
  kPerHead,        // over head_dim, before RoPE
  kFullWidth,      // over the dims of all heads together, before RoPE (MiniMax-M2)
  kUnitAfterRope,  // over head_dim, without weights, after RoPE (Llama 4's L2 norm)
};

// Softmax attention with grouped KV heads (multi-head and multi-query are special cases).
struct GroupedQueryAttention {
  // Queries are multiplied by 1 + scale * ln(1 + floor((position + 1) / floor_positions)) (Llama
  // 4's attention temperature in layers without positions; config keys attn_scale, floor_scale).
  struct Temperature {
    double scale = 0;
    double floor_positions = 1;
    bool operator==(const Temperature&) const = default;
  };

  uint32_t num_heads = 0;
  uint32_t num_kv_heads = 0;  // divides num_heads
  uint32_t head_dim = 0;      // independent of hidden_size / num_heads
  bool qkv_bias = false;
  bool output_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  RopeSpec rope = {};
  double softmax_scale = 0;     // usually head_dim^-0.5
  uint32_t sliding_window = 0;  // keys visible, the own one included; 0 = all
  // Only keys of the query's own chunk are visible, positions [n * chunk_size, (n + 1) *
  // chunk_size); 0 = all. Not together with a window.
  uint32_t chunk_size = 0;
  // One learned logit per query head that takes part in the softmax and stands for no key
  // (gpt-oss).
  bool sinks = false;
  std::optional<Temperature> temperature = {};
  // The query projection gives a gate behind each head's query; results are multiplied by its
  // sigmoid (Qwen3-Next).
  bool output_gate = false;
  bool operator==(const GroupedQueryAttention&) const = default;
};

// Chooses the positions that a token attends to (DeepSeek V3.2's sparse attention,
// kernels/index_selection.h): a small attention of its own whose heads share one key per token. It
// rotates the first rope_head_dim dims of its heads by halves, whatever the latents' layout.
struct SparseIndexer {
  uint32_t num_heads = 0;
  uint32_t head_dim = 0;
  uint32_t top_k = 0;       // positions chosen; a context no longer than that is read whole
  double key_norm_eps = 0;  // of the keys' LayerNorm
  bool operator==(const SparseIndexer&) const = default;
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values of all
// heads are linear functions of one latent vector per token, and one rotated key is shared by all
// heads. What is kept of a token is the latent after its norm and that key.
struct LatentAttention {
  uint32_t num_heads = 0;
  uint32_t q_lora_rank = 0;     // width of the query's own latent; 0 = projected directly
  uint32_t kv_lora_rank = 0;    // width of the latent
  uint32_t nope_head_dim = 0;   // of a query or key head: dims made from the latent, not rotated
  uint32_t rope_head_dim = 0;   // and dims that rotate; they follow the others in a query head
  uint32_t value_head_dim = 0;  // may differ from the key's
  double latent_norm_eps = 0;   // of the norms of both latents
  RopeSpec rope = {};           // rotary_dim = rope_head_dim
  double softmax_scale = 0;
  // Reads the query's latent, so q_lora_rank is not 0 with it.
  std::optional<SparseIndexer> indexer = {};
  bool operator==(const LatentAttention&) const = default;

  uint32_t query_head_dim() const { return nope_head_dim + rope_head_dim; }
  // Values kept of a token, for all heads together.
  uint32_t cached_dim() const { return kv_lora_rank + rope_head_dim; }
};

// Lightning attention (MiniMax-01, arXiv 2501.08313, section 2.2): linear attention whose past is
// one matrix per head, S = exp(-slope) S + k^T v, read by y = q S. q, k and v are silu of a
// projection; there are no positions. The results of all heads together are normalised and
// multiplied by the sigmoid of another projection.
struct LightningAttention {
  uint32_t num_heads = 0;
  uint32_t head_dim = 0;
  double norm_eps = 0;
  // slopes[h] of head h: how fast it forgets.
  std::vector<double> slopes = {};
  bool operator==(const LightningAttention&) const = default;
};

// Gated delta net (arXiv 2412.06464; Qwen3-Next): linear attention that overwrites what a key stood
// for, S = decay S + k ((v - decay S^T k) beta)^T, y = S^T q, with decay and beta of each token and
// head. q, k and v go through a causal convolution over a few tokens, one filter a channel, and
// silu; q and k then have length 1. Results are normalised per head and multiplied by silu of
// another projection, z.
struct GatedDeltaNet {
  uint32_t num_key_heads = 0;
  uint32_t num_value_heads = 0;  // a multiple; value heads i * n .. read key head i
  uint32_t key_head_dim = 0;
  uint32_t value_head_dim = 0;
  uint32_t conv_taps = 0;  // tokens that the convolution sees, the own one included
  bool operator==(const GatedDeltaNet&) const = default;

  uint32_t values_per_key() const { return num_value_heads / num_key_heads; }
  // Of one key head in the fused projection: query, key, then value and z of its value heads.
  uint32_t group_rows() const { return 2 * (key_head_dim + values_per_key() * value_head_dim); }
};

using AttentionSpec =
    std::variant<GroupedQueryAttention, LatentAttention, LightningAttention, GatedDeltaNet>;
// Of a kind without positions: one that rotates nothing.
const RopeSpec& RopeOf(const AttentionSpec& attention);
// Heads that tensor parallelism divides: query heads, of a gated delta net key heads.
uint32_t NumHeads(const AttentionSpec& attention);

// down(silu(gate(x)) * up(x))
struct DenseFfn {
  uint32_t intermediate_size = 0;
  bool operator==(const DenseFfn&) const = default;
};

// How a token chooses its experts and what they weigh (kernels/routing.h has the formulas).
struct RouterSpec {
  enum class Score { kSoftmax, kSigmoid };  // over all experts; of each expert alone. In fp32
  Score score = Score::kSoftmax;
  bool correction_bias = false;  // added to the scores for choosing, not to the weights
  // Only experts of the top_groups best of num_groups equal, consecutive groups can be chosen
  // (DeepSeek-V3, arXiv 2412.19437 section 2.1.2; config keys n_group, topk_group).
  uint32_t num_groups = 1;
  uint32_t top_groups = 1;
  bool renormalise = true;  // divide the chosen weights by their sum
  double scale = 1;         // and multiply them (config key routed_scaling_factor)
  // A weight multiplies what its expert is given, not what it answers (Llama 4).
  bool weigh_input = false;
  bool logit_bias = false;  // the router is an affine map: a bias added to its logits
  bool operator==(const RouterSpec&) const = default;
};

// The activation of gpt-oss's experts, with c = min(gate(x), limit): c * sigmoid(alpha * c) *
// (clamp(up(x), -limit, limit) + 1) instead of silu(gate(x)) * up(x) (config keys swiglu_limit,
// swiglu_alpha).
struct ClampedSwiglu {
  double limit = 7;
  double alpha = 1.702;
  bool operator==(const ClampedSwiglu&) const = default;
};

// Each token goes through top_k of num_experts FFNs, weighted, and through the shared expert.
struct MoeFfn {
  uint32_t num_experts = 0;
  uint32_t top_k = 0;
  uint32_t intermediate_size = 0;  // of one expert
  // One FFN that every token goes through with weight 1; several shared experts are one FFN of
  // their summed width. 0 = none.
  uint32_t shared_intermediate_size = 0;
  bool shared_gate = false;  // its result is multiplied by the sigmoid of a projection to one value
  RouterSpec router = {};
  bool expert_bias = false;                   // experts add biases to gate, up and down
  std::optional<ClampedSwiglu> clamped = {};  // activation of the experts
  bool operator==(const MoeFfn&) const = default;
};

using FfnSpec = std::variant<DenseFfn, MoeFfn>;

// x = alpha norm(x) + beta f(norm(x)) instead of x += f(norm(x)): the residual is what the norm
// gave (MiniMax-01; config keys postnorm and layernorm_*_{alpha,beta}).
struct ScaledResidual {
  double alpha = 1;
  double beta = 1;
  bool operator==(const ScaledResidual&) const = default;
};

// Pre-norm decoder layer: x += attention(norm(x)); x += ffn(norm(x)).
struct LayerSpec {
  AttentionSpec attention;
  FfnSpec ffn;
  std::optional<ScaledResidual> attention_residual = {};
  std::optional<ScaledResidual> ffn_residual = {};
  // What attention and FFN give is normalised before it is added: x += norm(attention(norm(x))).
  bool post_norms = false;
  bool operator==(const LayerSpec&) const = default;
};

struct ModelSpec {
  std::string family = {};  // HF model_type, e.g. "qwen3_moe"
  uint32_t hidden_size = 0;
  uint32_t vocab_size = 0;
  uint32_t max_context_tokens = 0;
  double norm_eps = 1e-6;
  bool tied_embeddings = false;
  std::vector<LayerSpec> layers = {};
  // Layers behind the last one that a checkpoint may hold to guess tokens ahead (multi-token
  // prediction).
  uint32_t num_draft_layers = 0;
  // Those of them that are to be held: their numbers go on from the last layer's. Empty unless
  // loading was asked for (SpecFromConfig). Nothing runs them yet. What such a layer takes is a
  // projection of the next token's embedding and the hidden state, both after norms (DeepSeek-V3,
  // arXiv 2412.19437, section 2.2); its output has a norm of its own before the head.
  std::vector<LayerSpec> draft_layers = {};
  std::vector<TokenId> eos_tokens = {};  // any of them ends a sequence
  std::optional<TokenId> bos_token = {};

  // Of layers and draft layers together, by number.
  size_t NumLayersHeld() const { return layers.size() + draft_layers.size(); }
  const LayerSpec& LayerAt(size_t layer) const {
    return layer < layers.size() ? layers[layer] : draft_layers[layer - layers.size()];
  }
  // Without draft layers, as is the next.
  uint64_t NumParameters() const;
  // Of those, how many one token's forward pass multiplies with (chosen experts only, head
  // included).
  uint64_t NumActiveParameters() const;
};

// Whether the weights of draft layers are read or left in the checkpoint.
enum class DraftLayers { kSkip, kLoad };

// What a weight is for. Shapes are [rows, cols] = [out, in]; vectors are [1, n].
enum class WeightRole {
  kEmbedding,      // [vocab, hidden]
  kFinalNorm,      // [1, hidden]
  kHead,           // [vocab, hidden]; absent when tied
  kAttentionNorm,  // [1, hidden]
  kQuery,          // [heads * head_dim, hidden]; with an output gate twice the rows, a head's gate
                   // behind its query
  kKey,            // [kv_heads * head_dim, hidden]
  kValue,          // [kv_heads * head_dim, hidden]
  kQueryBias,
  kKeyBias,
  kValueBias,
  kQueryNorm,  // [1, head_dim]; over the full width [1, heads * head_dim]
  kKeyNorm,    // [1, head_dim]; over the full width [1, kv_heads * head_dim]
  kOutput,     // [hidden, heads * head_dim]
  kOutputBias,
  kSinks,            // [1, heads]
  kFfnNorm,          // [1, hidden]
  kRouter,           // [experts, hidden]
  kRouterBias,       // [1, experts], the correction bias
  kRouterLogitBias,  // [1, experts], added to the logits
  kGate,      // [intermediate, hidden], of the dense FFN, one expert or (in an MoE layer, without
              // an expert number) the shared expert
  kUp,        // likewise
  kDown,      // [hidden, intermediate]
  kGateBias,  // [1, intermediate], of experts
  kUpBias,    // [1, intermediate], likewise
  kDownBias,  // [1, hidden], likewise; held by the rank with the expert's first columns

  // Of layers with post_norms.
  kAttentionPostNorm,  // [1, hidden]
  kFfnPostNorm,        // [1, hidden]

  // Of latent attention. kQuery and kOutput are as above, with the head dims of query and value;
  // kQuery's input is the query's latent where there is one.
  kQueryDown,      // [q_lora, hidden]
  kQueryDownNorm,  // [1, q_lora]
  kLatentDown,     // [kv_lora, hidden]
  kRopeKey,        // [rope_head_dim, hidden]
  kLatentNorm,     // [1, kv_lora]
  kKeyUp,          // of one head: [kv_lora, nope_head_dim], from a query to the latent
  kValueUp,        // of one head: [value_head_dim, kv_lora]

  // Of its indexer.
  kIndexQuery,        // [index_heads * index_head_dim, q_lora]
  kIndexKey,          // [index_head_dim, hidden]
  kIndexKeyNorm,      // [1, index_head_dim]
  kIndexKeyNormBias,  // likewise
  kIndexWeights,      // [index_heads, hidden]

  // Of linear attention. kOutput is as above.
  kLinearInput,  // lightning: [heads * 3 * head_dim, hidden], per head query, key, value;
                 // delta net: [key_heads * group_rows, hidden]
  kOutputGate,   // lightning: [heads * head_dim, hidden]
  kLinearNorm,   // lightning: [1, heads * head_dim]; delta net: [1, value_head_dim]
  kDeltaGates,   // delta net: [2 * value_heads, hidden], per key head the write gates of its value
                 // heads, then their decays
  kQueryFilter,  // delta net: [key_heads * key_head_dim, taps], the last tap is the own token's
  kKeyFilter,    // likewise
  kValueFilter,  // [value_heads * value_head_dim, taps]
  kDecayRate,    // [1, value_heads]: logarithms
  kDecayBias,    // [1, value_heads]
  kSharedGate,   // [1, hidden], of a gated shared expert

  // Of draft layers, which also have a kFinalNorm and, where the checkpoint does not leave these to
  // the model's own, a kEmbedding and a kHead; all with the layer's number.
  kDraftEmbeddingNorm,  // [1, hidden]
  kDraftHiddenNorm,     // [1, hidden]
  kDraftInput,          // [hidden, 2 * hidden], from embedding and hidden state side by side
};

// Norms, biases and filters: kept in float32, row by row, whatever the checkpoint stores. All
// others are matrices, which are packed.
bool IsVector(WeightRole role);
// Gate, up or down.
bool IsFfnMatrix(WeightRole role);

// Matrices whose products decide between alternatives: in anything less than float32 they would
// decide differently now and then, so they are held as float32 whatever the checkpoint stores.
bool IsHeldAsFloat32(WeightRole role);

// Where a logical weight stands in the checkpoint.
struct WeightBinding {
  WeightRole role;
  int32_t layer = -1;   // -1 outside the layers
  int32_t expert = -1;  // -1 when not an expert's
  int32_t head = -1;    // -1 when not of one attention head
  uint64_t rows = 0;
  uint64_t cols = 0;
  std::string tensor = {};  // name in the checkpoint
  uint64_t first_row = 0;   // the weight begins at this row of the tensor taken as [*, cols]
                            // (stacked experts, fused projections)
  // The tensor holds the transpose: there the weight is [cols, rows], and first_row counts rows of
  // [*, rows].
  bool transposed = false;
  // Rows of several weights stand beside each other in the tensor, which is taken as [*,
  // tensor_cols] (0: rows of the weight's alone), and this one's begin at column first_col: Llama
  // 4's transposed gates and ups, the biases of gpt-oss's.
  uint64_t first_col = 0;
  uint64_t tensor_cols = 0;
  // From one output (row; entry of a vector) to the next the tensor steps so many rows, or, of a
  // vector or where transposed, columns: 2 where gates and ups stand in turn (gpt-oss).
  uint64_t output_step = 1;
  // Rows of each head stand in interleaved-pair order (GGUF's llama architecture): row 2i and 2i+1
  // of a head are rows i and i + head_dim/2 of the canonical order. 0 = canonical, else head_dim.
  uint32_t interleaved_head_dim = 0;
  // The tensor holds the weight minus 1 (vectors only).
  bool zero_centred = false;
  // What the tensor's bytes are in truth, where its own type is but a container
  // (model/checkpoint/nibble_groups.h).
  std::optional<DType> packed_as = {};
  // Element type of the tensor, or packed_as, where a checkpoint was opened.
  std::optional<DType> stored = {};
  // Name of the tensor with the scales of its blocks (model/checkpoint/fp8_blocks.h) or groups;
  // empty unless `stored` is kF8E4M3 or packed_as is set.
  std::string scales = {};

  // Rows or columns of the tensor from the first to the last of `count` outputs.
  uint64_t OutputSpan(uint64_t count) const {
    return count == 0 ? 0 : (count - 1) * output_step + 1;
  }
  // Elements of a row of the tensor, taken as [*, row].
  uint64_t TensorRowElements() const {
    if (tensor_cols != 0) return tensor_cols;
    return transposed ? rows : cols;
  }
};

// Matrices that are read across their quantised blocks (transposed) and are therefore held as
// bfloat16 where the checkpoint stores blocks.
bool IsHeldUnquantised(const WeightBinding& weight);

}  // namespace essor::model
