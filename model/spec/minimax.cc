// MiniMax-Text-01 and M1: lightning attention in most layers, softmax attention in the others, and
// a scaled residual (arXiv 2501.08313). `minimax_text_01` and `minimax_m1` are the vendor's names
// and keys, `minimax` those of transformers.
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

// The norm inside lightning attention is made without the config's epsilon.
constexpr double kLightningNormEps = 1e-6;

// slope(h) = 2^(-8 (h + 1) / n) * (1 - layer / (layers - 1) + 1e-5): the first layers and heads
// forget fastest. The vendor's rule for head counts that are no power of two (ALiBi's) is
// different; no published checkpoint has one, and transformers applies this to all.
std::vector<double> Slopes(uint32_t num_heads, uint32_t layer, uint32_t num_layers) {
  const double depth = 1 - layer / (num_layers - 1 + 1e-5) + 1e-5;
  std::vector<double> slopes;
  for (uint32_t head = 0; head < num_heads; ++head) {
    slopes.push_back(std::exp2(-8.0 * (head + 1) / num_heads) * depth);
  }
  return slopes;
}

// Which layers have softmax attention: `layer_types`, or the vendor's `attn_type_list` of 0 and 1.
absl::StatusOr<std::vector<bool>> ReadSoftmaxLayers(const ConfigView& config, uint32_t num_layers) {
  if (config.Has("layer_types")) return ReadFullAttentionLayers(config, num_layers);
  ESSOR_ASSIGN_OR_RETURN(const auto types, config.Integers("attn_type_list"));
  if (types.size() != num_layers) {
    return config.Error("attn_type_list",
                        absl::StrCat(types.size(), " entries for ", num_layers, " layers"));
  }
  std::vector<bool> softmax;
  for (const int64_t type : types) {
    if (type != 0 && type != 1) {
      return config.Error("attn_type_list",
                          absl::StrCat("attention type ", type, " is not 0 or 1"));
    }
    softmax.push_back(type == 1);
  }
  return softmax;
}

// The vendor's keys or those of transformers for one kind of sub-layer.
absl::StatusOr<ScaledResidual> ReadResidual(const ConfigView& config, const std::string& vendor,
                                            const std::string& own) {
  const auto key = [&](const std::string& part) {
    const std::string name = absl::StrCat("layernorm_", vendor, "_", part);
    return config.Has(name) ? name : absl::StrCat(own, "_", part, "_factor");
  };
  ScaledResidual residual;
  ESSOR_ASSIGN_OR_RETURN(residual.alpha, config.PositiveOr(key("alpha"), 1));
  ESSOR_ASSIGN_OR_RETURN(residual.beta, config.PositiveOr(key("beta"), 1));
  return residual;
}

// What the vendor's code can do besides and no published checkpoint asks for.
absl::Status RefuseOthers(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(const bool postnorm, config.BoolOr("postnorm", true));
  if (!postnorm) return config.Error("postnorm", "false is not supported");
  ESSOR_ASSIGN_OR_RETURN(const uint32_t shared,
                         config.CountOr("shared_intermediate_size", kMaxWidth, 0));
  if (shared != 0) {
    return config.Error("shared_intermediate_size",
                        absl::StrCat(shared, ": a shared expert is not supported"));
  }
  if (config.Has("sliding_window")) {
    return config.Error("sliding_window", "is not supported");
  }
  return absl::OkStatus();
}

absl::StatusOr<MoeFfn> ReadMoe(const ConfigView& config, uint32_t num_layers) {
  MoeFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, num_layers));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("intermediate_size", kMaxWidth));
  return ffn;
}

// `rotary_dim`, which counts for published models although transformers' class does not know it.
absl::Status ReadRotaryDim(const ConfigView& config, GroupedQueryAttention& attention) {
  ESSOR_ASSIGN_OR_RETURN(attention.rope.rotary_dim,
                         config.SizeOr("rotary_dim", kMaxWidth, attention.rope.rotary_dim));
  const uint32_t dim = attention.rope.rotary_dim;
  if (dim <= attention.head_dim && dim % 2 == 0) return absl::OkStatus();
  return config.Error("rotary_dim",
                      absl::StrCat(dim, " is odd or exceeds the head_dim of ", attention.head_dim));
}

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_RETURN_IF_ERROR(RefuseOthers(config));
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1e-5,
                                                               .rope_theta = 1e6,
                                                               .max_position_embeddings = 131072,
                                                               .num_kv_heads = 8}));
  ESSOR_RETURN_IF_ERROR(ReadRotaryDim(config, decoder.attention));
  const uint64_t state = uint64_t{decoder.attention.num_heads} * decoder.attention.head_dim *
                         decoder.attention.head_dim;
  if (state > kMaxStateFloats) {
    return config.Error("head_dim",
                        absl::StrCat("states of ", state, " values exceed ", kMaxStateFloats));
  }
  if (decoder.num_layers < 2) return config.Error("num_hidden_layers", "fewer than 2 layers");
  ESSOR_ASSIGN_OR_RETURN(const auto softmax, ReadSoftmaxLayers(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(const MoeFfn ffn, ReadMoe(config, decoder.num_layers));
  LayerSpec full{.attention = decoder.attention, .ffn = ffn};
  ESSOR_ASSIGN_OR_RETURN(full.ffn_residual, ReadResidual(config, "mlp", "mlp"));
  LayerSpec linear = full;
  ESSOR_ASSIGN_OR_RETURN(full.attention_residual,
                         ReadResidual(config, "full_attention", "full_attn"));
  ESSOR_ASSIGN_OR_RETURN(linear.attention_residual,
                         ReadResidual(config, "linear_attention", "linear_attn"));
  const GroupedQueryAttention& sizes = decoder.attention;
  for (uint32_t layer = 0; layer < decoder.num_layers; ++layer) {
    linear.attention =
        LightningAttention{.num_heads = sizes.num_heads,
                           .head_dim = sizes.head_dim,
                           .norm_eps = kLightningNormEps,
                           .slopes = Slopes(sizes.num_heads, layer, decoder.num_layers)};
    decoder.spec.layers.push_back(softmax[layer] ? full : linear);
  }
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(
      spec,
      {.moe = "block_sparse_moe", .expert_gate = "w1", .expert_up = "w3", .expert_down = "w2"},
      exists);
}

// transformers saves tables that follow from the config beside the weights.
bool IsTable(const ModelSpec&, const std::string& tensor) {
  for (const char* name : {"slope_rate", "query_decay", "key_decay", "diagonal_decay"}) {
    if (tensor.ends_with(absl::StrCat(".self_attn.", name))) return true;
  }
  return false;
}

}  // namespace

extern const ModelFamily kMiniMaxFamily = {
    .model_type = "minimax", .make_spec = MakeSpec, .bind = Bind, .is_unused = IsTable};
extern const ModelFamily kMiniMaxText01Family = {
    .model_type = "minimax_text_01", .make_spec = MakeSpec, .bind = Bind, .is_unused = IsTable};
extern const ModelFamily kMiniMaxM1Family = {
    .model_type = "minimax_m1", .make_spec = MakeSpec, .bind = Bind, .is_unused = IsTable};

}  // namespace essor::model
