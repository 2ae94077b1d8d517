#include "model/spec/decoder_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/spec/quantization_config.h"
#include "model/spec/rope_config.h"

namespace essor::model {
namespace {

absl::StatusOr<TokenId> CheckToken(const ConfigView& config, const std::string& key, int64_t id,
                                   uint32_t vocab_size) {
  if (id < 0 || id >= static_cast<int64_t>(vocab_size)) {
    return config.Error(key, absl::StrCat(id, " is outside the vocabulary of ", vocab_size));
  }
  return static_cast<TokenId>(id);
}

absl::Status ReadSpecialTokens(const ConfigView& config, ModelSpec& spec) {
  ESSOR_ASSIGN_OR_RETURN(const auto eos, config.Integers("eos_token_id"));
  for (const int64_t id : eos) {
    ESSOR_ASSIGN_OR_RETURN(const TokenId token,
                           CheckToken(config, "eos_token_id", id, spec.vocab_size));
    spec.eos_tokens.push_back(token);
  }
  ESSOR_ASSIGN_OR_RETURN(const auto bos, config.Integers("bos_token_id"));
  if (!bos.empty()) {
    ESSOR_ASSIGN_OR_RETURN(spec.bos_token,
                           CheckToken(config, "bos_token_id", bos.front(), spec.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status RefuseUnsupported(const ConfigView& config) {
  const std::string key = config.Has("hidden_act") ? "hidden_act" : "hidden_activation";
  ESSOR_ASSIGN_OR_RETURN(const std::string activation, config.StringOr(key, "silu"));
  if (activation != "silu" && activation != "swish") {
    return config.Error(key, absl::StrCat("activation \"", activation, "\" is not silu"));
  }
  return QuantisedType(config).status();
}

absl::StatusOr<GroupedQueryAttention> ReadAttention(const ConfigView& config, uint32_t hidden_size,
                                                    const DecoderDefaults& defaults) {
  GroupedQueryAttention attention;
  ESSOR_ASSIGN_OR_RETURN(attention.num_heads, config.Size("num_attention_heads", kMaxHeads));
  const uint32_t default_kv =
      defaults.num_kv_heads == 0 ? attention.num_heads : defaults.num_kv_heads;
  ESSOR_ASSIGN_OR_RETURN(attention.num_kv_heads,
                         config.SizeOr("num_key_value_heads", kMaxHeads, default_kv));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    return config.Error("num_key_value_heads",
                        absl::StrCat(attention.num_kv_heads, " does not divide the ",
                                     attention.num_heads, " attention heads"));
  }
  if (!config.Has("head_dim") && defaults.head_dim == 0 && hidden_size % attention.num_heads != 0) {
    return config.Error("hidden_size",
                        absl::StrCat(hidden_size, " is not a multiple of the ", attention.num_heads,
                                     " attention heads, and head_dim is missing"));
  }
  const uint32_t default_dim =
      defaults.head_dim == 0 ? std::max(1u, hidden_size / attention.num_heads) : defaults.head_dim;
  ESSOR_ASSIGN_OR_RETURN(attention.head_dim, config.SizeOr("head_dim", kMaxWidth, default_dim));
  if (uint64_t{attention.num_heads} * attention.head_dim > kMaxWidth) {
    return config.Error("head_dim",
                        absl::StrCat(attention.num_heads, " heads of ", attention.head_dim,
                                     " exceed a width of ", kMaxWidth));
  }
  attention.softmax_scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  return attention;
}

}  // namespace

absl::StatusOr<Decoder> ReadDecoderFrame(const ConfigView& config,
                                         const DecoderDefaults& defaults) {
  ESSOR_RETURN_IF_ERROR(RefuseUnsupported(config));
  Decoder decoder;
  ModelSpec& spec = decoder.spec;
  ESSOR_ASSIGN_OR_RETURN(spec.hidden_size, config.Size("hidden_size", kMaxWidth));
  ESSOR_ASSIGN_OR_RETURN(spec.vocab_size, config.Size("vocab_size", kMaxVocabulary));
  ESSOR_ASSIGN_OR_RETURN(decoder.num_layers, config.Size("num_hidden_layers", kMaxLayers));
  ESSOR_ASSIGN_OR_RETURN(spec.norm_eps, config.PositiveOr("rms_norm_eps", defaults.norm_eps));
  ESSOR_ASSIGN_OR_RETURN(spec.tied_embeddings,
                         config.BoolOr("tie_word_embeddings", defaults.tied_embeddings));
  ESSOR_ASSIGN_OR_RETURN(
      spec.max_context_tokens,
      config.SizeOr("max_position_embeddings", kMaxPositions, defaults.max_position_embeddings));
  ESSOR_RETURN_IF_ERROR(ReadSpecialTokens(config, spec));
  return decoder;
}

absl::StatusOr<Decoder> ReadDecoder(const ConfigView& config, const DecoderDefaults& defaults) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoderFrame(config, defaults));
  ModelSpec& spec = decoder.spec;
  ESSOR_ASSIGN_OR_RETURN(decoder.attention, ReadAttention(config, spec.hidden_size, defaults));
  ESSOR_ASSIGN_OR_RETURN(decoder.attention.rope,
                         ReadRope(config, {.head_dim = decoder.attention.head_dim,
                                           .max_position_embeddings = spec.max_context_tokens,
                                           .default_theta = defaults.rope_theta,
                                           .default_partial = defaults.partial_rotary_factor}));
  // Users who switch YaRN on for Qwen leave max_position_embeddings at the unstretched length.
  if (const auto* yarn = std::get_if<RopeSpec::YarnScaling>(&decoder.attention.rope.scaling)) {
    const double stretched = yarn->factor * yarn->original_max_position;
    spec.max_context_tokens = static_cast<uint32_t>(
        std::clamp<double>(stretched, spec.max_context_tokens, static_cast<double>(kMaxPositions)));
  }
  return decoder;
}

absl::StatusOr<DenseFfn> ReadDenseFfn(const ConfigView& config, const std::string& key) {
  DenseFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size(key, kMaxWidth));
  return ffn;
}

absl::StatusOr<std::vector<bool>> ReadFullAttentionLayers(const ConfigView& config,
                                                          uint32_t num_layers) {
  ESSOR_ASSIGN_OR_RETURN(const auto types, config.Strings("layer_types"));
  if (types.size() != num_layers) {
    return config.Error("layer_types",
                        absl::StrCat(types.size(), " entries for ", num_layers, " layers"));
  }
  std::vector<bool> full;
  for (const std::string& type : types) {
    if (type != "full_attention" && type != "linear_attention") {
      return config.Error("layer_types",
                          absl::StrCat("layer type \"", type, "\" is not supported"));
    }
    full.push_back(type == "full_attention");
  }
  return full;
}

absl::StatusOr<std::vector<uint32_t>> ReadQwenWindows(const ConfigView& config,
                                                      uint32_t num_layers) {
  std::vector<uint32_t> windows(num_layers, 0);
  ESSOR_ASSIGN_OR_RETURN(const bool enabled, config.BoolOr("use_sliding_window", false));
  uint32_t window = 0;
  if (enabled) {
    ESSOR_ASSIGN_OR_RETURN(window, config.SizeOr("sliding_window", kMaxPositions, 4096));
  }
  if (!config.Has("layer_types")) {
    ESSOR_ASSIGN_OR_RETURN(const double first, config.NumberOr("max_window_layers", 28));
    for (uint32_t layer = 0; layer < num_layers; ++layer) {
      if (layer >= first) windows[layer] = window;
    }
    return windows;
  }
  return ReadLayerWindows(config, num_layers, window);
}

absl::StatusOr<std::vector<uint32_t>> ReadLayerWindows(const ConfigView& config,
                                                       uint32_t num_layers, uint32_t window) {
  std::vector<uint32_t> windows(num_layers, 0);
  ESSOR_ASSIGN_OR_RETURN(const auto types, config.Strings("layer_types"));
  if (types.size() != num_layers) {
    return config.Error("layer_types",
                        absl::StrCat(types.size(), " entries for ", num_layers, " layers"));
  }
  for (uint32_t layer = 0; layer < num_layers; ++layer) {
    if (types[layer] == "full_attention") continue;
    if (types[layer] != "sliding_attention") {
      return config.Error("layer_types",
                          absl::StrCat("layer type \"", types[layer], "\" is not supported"));
    }
    if (window == 0) {
      return config.Error("layer_types",
                          "names sliding_attention, but use_sliding_window is not set");
    }
    windows[layer] = window;
  }
  return windows;
}

}  // namespace essor::model
