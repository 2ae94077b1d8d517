// Llama 4 Scout and Maverick (text). Layers with interleaved RoPE, which see their own chunk of the
// context and may norm queries and keys after the rotation, alternate with layers without
// positions, which see everything and raise their queries' temperature with the position. One
// expert per token, given its input times a sigmoid, beside a shared one; the layers between may be
// dense.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {

extern const ModelFamily kLlama4TextFamily;

namespace {

// Published configs hold a number that was once a threshold; any but 0 is true.
absl::StatusOr<bool> IsTemperatureTuned(const ConfigView& config) {
  const std::string key = "attn_temperature_tuning";
  if (config.Integers(key).ok()) {
    ESSOR_ASSIGN_OR_RETURN(const double value, config.NumberOr(key, 1));
    return value != 0;
  }
  return config.BoolOr(key, true);
}

absl::StatusOr<std::optional<GroupedQueryAttention::Temperature>> ReadTemperature(
    const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(const bool tuned, IsTemperatureTuned(config));
  if (!tuned) return std::nullopt;
  GroupedQueryAttention::Temperature temperature;
  ESSOR_ASSIGN_OR_RETURN(temperature.scale, config.NumberOr("attn_scale", 0.1));
  ESSOR_ASSIGN_OR_RETURN(temperature.floor_positions, config.PositiveOr("floor_scale", 8192));
  return temperature;
}

// Which layers rotate: `no_rope_layers` says 1 for those that do (an empty list counts as none),
// else all but every `no_rope_layer_interval`-th.
absl::StatusOr<std::vector<bool>> ReadRopeLayers(const ConfigView& config, uint32_t num_layers) {
  ESSOR_ASSIGN_OR_RETURN(const auto listed, config.Integers("no_rope_layers"));
  ESSOR_ASSIGN_OR_RETURN(const uint32_t interval,
                         config.SizeOr("no_rope_layer_interval", kMaxLayers, 4));
  if (!listed.empty() && listed.size() < num_layers) {
    return config.Error("no_rope_layers",
                        absl::StrCat(listed.size(), " entries for ", num_layers, " layers"));
  }
  std::vector<bool> rotates(num_layers);
  for (uint32_t layer = 0; layer < num_layers; ++layer) {
    rotates[layer] = listed.empty() ? (layer + 1) % interval != 0 : listed[layer] != 0;
  }
  return rotates;
}

// Which layers see their chunk only: those that `layer_types` names, else those that rotate.
absl::StatusOr<std::vector<bool>> ReadChunkedLayers(const ConfigView& config,
                                                    const std::vector<bool>& rotates) {
  ESSOR_ASSIGN_OR_RETURN(const auto types, config.Strings("layer_types"));
  if (types.empty()) return rotates;
  if (types.size() != rotates.size()) {
    return config.Error("layer_types",
                        absl::StrCat(types.size(), " entries for ", rotates.size(), " layers"));
  }
  std::vector<bool> chunked;
  for (const std::string& type : types) {
    if (type != "chunked_attention" && type != "full_attention") {
      return config.Error("layer_types", absl::StrCat("layer type \"", type,
                                                      "\" is not chunked_attention or "
                                                      "full_attention"));
    }
    chunked.push_back(type == "chunked_attention");
  }
  return chunked;
}

// The attention of each layer.
absl::StatusOr<std::vector<GroupedQueryAttention>> ReadAttention(const ConfigView& config,
                                                                 const Decoder& decoder) {
  GroupedQueryAttention rotating = decoder.attention;
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  rotating.qkv_bias = bias;
  rotating.output_bias = bias;
  rotating.rope.interleaved = true;
  GroupedQueryAttention still = rotating;
  still.rope = {};
  ESSOR_ASSIGN_OR_RETURN(still.temperature, ReadTemperature(config));
  ESSOR_ASSIGN_OR_RETURN(const bool qk_norm, config.BoolOr("use_qk_norm", true));
  if (qk_norm) rotating.qk_norm = QkNorm::kUnitAfterRope;
  ESSOR_ASSIGN_OR_RETURN(const uint32_t chunk_size,
                         config.SizeOr("attention_chunk_size", kMaxPositions, 8192));
  ESSOR_ASSIGN_OR_RETURN(const auto rotates, ReadRopeLayers(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(const auto chunked, ReadChunkedLayers(config, rotates));
  std::vector<GroupedQueryAttention> layers;
  for (uint32_t layer = 0; layer < decoder.num_layers; ++layer) {
    layers.push_back(rotates[layer] ? rotating : still);
    if (chunked[layer]) layers.back().chunk_size = chunk_size;
  }
  return layers;
}

absl::StatusOr<MoeFfn> ReadMoe(const ConfigView& config, uint32_t num_layers) {
  MoeFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, num_layers));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("intermediate_size", kMaxWidth));
  ffn.shared_intermediate_size = ffn.intermediate_size;
  ffn.router = {.score = RouterSpec::Score::kSigmoid, .renormalise = false, .weigh_input = true};
  return ffn;
}

// Layers with experts: those that `moe_layers` lists, else every `interleave_moe_layer_step`-th.
absl::StatusOr<std::vector<bool>> ReadMoeLayers(const ConfigView& config, uint32_t num_layers) {
  ESSOR_ASSIGN_OR_RETURN(const auto listed, config.Integers("moe_layers"));
  ESSOR_ASSIGN_OR_RETURN(const uint32_t step,
                         config.SizeOr("interleave_moe_layer_step", kMaxLayers, 1));
  std::vector<bool> is_moe(num_layers);
  for (uint32_t layer = 0; layer < num_layers; ++layer) {
    is_moe[layer] = config.Has("moe_layers")
                        ? std::find(listed.begin(), listed.end(), layer) != listed.end()
                        : (layer + 1) % step == 0;
  }
  return is_moe;
}

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1e-5,
                                                               .rope_theta = 500000,
                                                               .max_position_embeddings = 131072,
                                                               .num_kv_heads = 8,
                                                               .head_dim = 128}));
  ESSOR_ASSIGN_OR_RETURN(const auto attention, ReadAttention(config, decoder));
  ESSOR_ASSIGN_OR_RETURN(const auto is_moe, ReadMoeLayers(config, decoder.num_layers));
  for (uint32_t layer = 0; layer < decoder.num_layers; ++layer) {
    LayerSpec parts{.attention = attention[layer], .ffn = {}};
    if (is_moe[layer]) {
      ESSOR_ASSIGN_OR_RETURN(parts.ffn, ReadMoe(config, decoder.num_layers));
    } else {
      ESSOR_ASSIGN_OR_RETURN(parts.ffn, ReadDenseFfn(config, "intermediate_size_mlp"));
    }
    decoder.spec.layers.push_back(parts);
  }
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec,
                     {.dense = "feed_forward",
                      .moe = "feed_forward",
                      .router = "router.weight",
                      .shared = "shared_expert",
                      .transposed_experts = true},
                     exists);
}

constexpr const char* kVision[] = {"vision_model.", "multi_modal_projector."};

}  // namespace

extern const ModelFamily kLlama4TextFamily = {"llama4_text", MakeSpec, Bind};
extern const MultimodalFamily kLlama4Family = {"llama4", &kLlama4TextFamily, "language_model.",
                                               kVision};

}  // namespace essor::model
