// DeepSeek V3 and R1, and their relatives Kimi K2 and Moonlight, which carry other numbers: latent
// attention with an own latent for the query (Moonlight: without), YaRN whose magnitude goes into
// the softmax scale; a sigmoid router limited to groups, a shared expert, the first layers dense.
// DeepSeek V3.2 adds an indexer that chooses the positions attention reads.
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"
#include "model/spec/rope_config.h"

namespace essor::model {
namespace {

// transformers builds both latent norms without the config's epsilon.
constexpr double kLatentNormEps = 1e-6;
// Nor does it read one for the indexer's keys.
constexpr double kIndexKeyNormEps = 1e-6;
// Each token of a step has a list of that length.
constexpr uint32_t kMaxIndexTopK = 1u << 16;

absl::Status CheckWidths(const ConfigView& config, const LatentAttention& attention,
                         uint32_t num_layers) {
  const uint64_t heads = attention.num_heads;
  if (heads * num_layers > kMaxHeadsOfModel) {
    return config.Error("num_attention_heads",
                        absl::StrCat(heads, " in each of ", num_layers, " layers are more than ",
                                     kMaxHeadsOfModel));
  }
  const struct {
    const char* key;
    uint64_t dim;
  } kHeadDims[] = {{"qk_nope_head_dim", attention.query_head_dim()},
                   {"v_head_dim", uint64_t{attention.nope_head_dim} + attention.value_head_dim},
                   {"kv_lora_rank", attention.cached_dim()}};
  for (const auto& [key, dim] : kHeadDims) {
    if (heads * dim > kMaxWidth) {
      return config.Error(key,
                          absl::StrCat(heads, " heads of ", dim, " exceed a width of ", kMaxWidth));
    }
  }
  if (attention.rope_head_dim % 2 != 0) {
    return config.Error("qk_rope_head_dim", absl::StrCat(attention.rope_head_dim, " is odd"));
  }
  return absl::OkStatus();
}

absl::StatusOr<LatentAttention> ReadAttention(const ConfigView& config, const Decoder& decoder,
                                              const DecoderDefaults& defaults) {
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  if (bias) {
    return config.Error("attention_bias", "biases of latent attention are not supported");
  }
  LatentAttention attention{.latent_norm_eps = kLatentNormEps};
  ESSOR_ASSIGN_OR_RETURN(attention.num_heads, config.Size("num_attention_heads", kMaxHeads));
  ESSOR_ASSIGN_OR_RETURN(attention.q_lora_rank, config.SizeOr("q_lora_rank", kMaxWidth, 0));
  ESSOR_ASSIGN_OR_RETURN(attention.kv_lora_rank, config.Size("kv_lora_rank", kMaxWidth));
  ESSOR_ASSIGN_OR_RETURN(attention.nope_head_dim, config.Size("qk_nope_head_dim", kMaxWidth));
  ESSOR_ASSIGN_OR_RETURN(attention.rope_head_dim, config.Size("qk_rope_head_dim", kMaxWidth));
  ESSOR_ASSIGN_OR_RETURN(attention.value_head_dim, config.Size("v_head_dim", kMaxWidth));
  ESSOR_RETURN_IF_ERROR(CheckWidths(config, attention, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(
      attention.rope, ReadRope(config, {.head_dim = attention.rope_head_dim,
                                        .max_position_embeddings = decoder.spec.max_context_tokens,
                                        .default_theta = defaults.rope_theta}));
  ESSOR_ASSIGN_OR_RETURN(attention.rope.interleaved, config.BoolOr("rope_interleave", true));
  attention.softmax_scale = 1.0 / std::sqrt(static_cast<double>(attention.query_head_dim()));
  if (const auto* yarn = std::get_if<RopeSpec::YarnScaling>(&attention.rope.scaling)) {
    attention.softmax_scale *= yarn->score_magnitude * yarn->score_magnitude;
  }
  return attention;
}

absl::StatusOr<SparseIndexer> ReadIndexer(const ConfigView& config,
                                          const LatentAttention& attention) {
  if (attention.q_lora_rank == 0) {
    return config.Error("q_lora_rank", "missing: the indexer reads the query's latent");
  }
  SparseIndexer indexer{.key_norm_eps = kIndexKeyNormEps};
  ESSOR_ASSIGN_OR_RETURN(indexer.num_heads, config.SizeOr("index_n_heads", kMaxHeads, 64));
  ESSOR_ASSIGN_OR_RETURN(indexer.head_dim, config.SizeOr("index_head_dim", kMaxWidth, 128));
  ESSOR_ASSIGN_OR_RETURN(indexer.top_k, config.SizeOr("index_topk", kMaxIndexTopK, 2048));
  if (uint64_t{indexer.num_heads} * indexer.head_dim > kMaxWidth) {
    return config.Error("index_head_dim",
                        absl::StrCat(indexer.num_heads, " heads of ", indexer.head_dim,
                                     " exceed a width of ", kMaxWidth));
  }
  if (indexer.head_dim < attention.rope_head_dim) {
    return config.Error("index_head_dim",
                        absl::StrCat(indexer.head_dim, " is less than the ",
                                     attention.rope_head_dim, " dims that rotate"));
  }
  return indexer;
}

// transformers 5 also writes the layers' kinds as a list, which may not say anything else.
absl::Status CheckLayerTypes(const ConfigView& config, const ModelSpec& spec) {
  if (!config.Has("mlp_layer_types")) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const auto types, config.Strings("mlp_layer_types"));
  std::vector<std::string> expected;
  for (const LayerSpec& layer : spec.layers) {
    expected.push_back(std::holds_alternative<DenseFfn>(layer.ffn) ? "dense" : "sparse");
  }
  if (types == expected) return absl::OkStatus();
  return config.Error("mlp_layer_types", "differs from first_k_dense_replace");
}

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config, const DecoderDefaults& defaults,
                                   bool sparse) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoderFrame(config, defaults));
  ESSOR_ASSIGN_OR_RETURN(LatentAttention attention, ReadAttention(config, decoder, defaults));
  if (sparse) {
    ESSOR_ASSIGN_OR_RETURN(attention.indexer, ReadIndexer(config, attention));
  }
  ESSOR_RETURN_IF_ERROR(AddDenseThenMoeLayers(
      config, attention, {.num_groups = 8, .top_groups = 4, .num_dense = 3, .scale = 2.5},
      &decoder));
  ESSOR_RETURN_IF_ERROR(CheckLayerTypes(config, decoder.spec));
  return decoder.spec;
}

absl::StatusOr<ModelSpec> MakeV3Spec(const ConfigView& config) {
  return MakeSpec(config, {.norm_eps = 1e-6, .max_position_embeddings = 4096}, /*sparse=*/false);
}

absl::StatusOr<ModelSpec> MakeV32Spec(const ConfigView& config) {
  return MakeSpec(config, {.norm_eps = 1e-6, .max_position_embeddings = 163840}, /*sparse=*/true);
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {}, exists);
}

// Kimi K2.5's other modality.
constexpr const char* kVision[] = {"vision_tower.", "mm_projector.", "multi_modal_projector."};

}  // namespace

extern const ModelFamily kDeepseekV3Family = {"deepseek_v3", MakeV3Spec, Bind,
                                              IsLayerBehindTheLast};
extern const ModelFamily kDeepseekV32Family = {"deepseek_v32", MakeV32Spec, Bind,
                                               IsLayerBehindTheLast};
extern const ModelFamily kKimiK2Family = {"kimi_k2", MakeV3Spec, Bind, IsLayerBehindTheLast};
extern const MultimodalFamily kKimiK25Family = {"kimi_k25", &kKimiK2Family, "language_model.",
                                                kVision};

}  // namespace essor::model
