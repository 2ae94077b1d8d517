#include "client/convert/gguf_header.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace essor::client {
namespace {

using model::GgufMetadataList;
using model::GgufValue;
using model::ModelSpec;
using model::RopeSpec;

// Values of general.file_type (llama.cpp's llama_ftype).
uint64_t FileType(ConvertType type) {
  switch (type) {
    case ConvertType::kF32:
      return 0;
    case ConvertType::kQ8_0:
      return 7;
    case ConvertType::kBF16:
      break;
  }
  return 32;
}

absl::Status CannotSay(const ModelSpec& spec, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("GGUF cannot describe this ", spec.family, " model: ", what));
}

absl::StatusOr<std::string> Architecture(const ModelSpec& spec) {
  if (spec.family == "llama" || spec.family == "mixtral") return "llama";
  if (spec.family == "qwen2" || spec.family == "qwen3") return spec.family;
  if (spec.family == "qwen3_moe") return "qwen3moe";
  return CannotSay(spec, "the family has no architecture there");
}

// One set of keys holds for all layers.
absl::Status CheckUniform(const ModelSpec& spec) {
  if (spec.layers.empty()) return CannotSay(spec, "it has no layers");
  for (const model::LayerSpec& layer : spec.layers) {
    if (layer.ffn.index() != spec.layers[0].ffn.index()) {
      return CannotSay(spec, "some layers have experts and some have not");
    }
    // ConvertModel() refuses every other kind.
    const auto& attention = std::get<model::GroupedQueryAttention>(layer.attention);
    if (attention.sliding_window != 0) return CannotSay(spec, "it has windowed attention");
  }
  return absl::OkStatus();
}

absl::Status AddScaling(const ModelSpec& spec, const RopeSpec& rope, const std::string& prefix,
                        GgufMetadataList& list) {
  if (const auto* linear = std::get_if<RopeSpec::LinearScaling>(&rope.scaling)) {
    list.emplace_back(prefix + "type", std::string("linear"));
    list.emplace_back(prefix + "factor", linear->factor);
  } else if (const auto* yarn = std::get_if<RopeSpec::YarnScaling>(&rope.scaling)) {
    const double magnitude = 0.1 * std::log(yarn->factor) + 1.0;
    const bool usual = yarn->beta_fast == 32.0 && yarn->beta_slow == 1.0 && yarn->truncate &&
                       std::abs(yarn->attention_factor - magnitude) < 1e-6;
    if (!usual) return CannotSay(spec, "its YaRN parameters are not the usual ones");
    list.emplace_back(prefix + "type", std::string("yarn"));
    list.emplace_back(prefix + "factor", yarn->factor);
    list.emplace_back(prefix + "original_context_length",
                      static_cast<uint64_t>(yarn->original_max_position));
  } else if (const auto* llama3 = std::get_if<RopeSpec::Llama3Scaling>(&rope.scaling)) {
    // Readers follow the divisors in rope_freqs.weight; these keys let GgufConfigToHf tell which
    // parameters gave them.
    list.emplace_back(prefix + "low_freq_factor", llama3->low_freq_factor);
    list.emplace_back(prefix + "high_freq_factor", llama3->high_freq_factor);
    list.emplace_back(prefix + "original_context_length",
                      static_cast<uint64_t>(llama3->original_max_position));
  }
  return absl::OkStatus();
}

void AddFfn(const model::FfnSpec& ffn, const std::string& prefix, GgufMetadataList& list) {
  if (const auto* dense = std::get_if<model::DenseFfn>(&ffn)) {
    list.emplace_back(prefix + "feed_forward_length", uint64_t{dense->intermediate_size});
    return;
  }
  const auto& moe = std::get<model::MoeFfn>(ffn);
  list.emplace_back(prefix + "feed_forward_length", uint64_t{moe.intermediate_size});
  list.emplace_back(prefix + "expert_feed_forward_length", uint64_t{moe.intermediate_size});
  list.emplace_back(prefix + "expert_count", uint64_t{moe.num_experts});
  list.emplace_back(prefix + "expert_used_count", uint64_t{moe.top_k});
  list.emplace_back(prefix + "expert_weights_norm", moe.router.renormalise);
}

}  // namespace

absl::StatusOr<GgufMetadataList> GgufHeader(const ModelSpec& spec, const std::string& name,
                                            ConvertType type) {
  ESSOR_RETURN_IF_ERROR(CheckUniform(spec));
  ESSOR_ASSIGN_OR_RETURN(const std::string architecture, Architecture(spec));
  const auto& attention = std::get<model::GroupedQueryAttention>(spec.layers[0].attention);
  if (attention.rope.rotary_dim != attention.head_dim) {
    return CannotSay(spec, "only part of each head is rotated");
  }
  const std::string prefix = architecture + ".";
  GgufMetadataList list = {
      {"general.architecture", architecture},
      {"general.type", std::string("model")},
      {"general.name", name},
      {"general.file_type", FileType(type)},
      {"general.quantization_version", uint64_t{2}},
      {prefix + "block_count", uint64_t{spec.layers.size()}},
      {prefix + "context_length", uint64_t{spec.max_context_tokens}},
      {prefix + "embedding_length", uint64_t{spec.hidden_size}},
      {prefix + "attention.head_count", uint64_t{attention.num_heads}},
      {prefix + "attention.head_count_kv", uint64_t{attention.num_kv_heads}},
      {prefix + "attention.key_length", uint64_t{attention.head_dim}},
      {prefix + "attention.value_length", uint64_t{attention.head_dim}},
      {prefix + "attention.layer_norm_rms_epsilon", spec.norm_eps},
      {prefix + "rope.dimension_count", uint64_t{attention.rope.rotary_dim}},
      {prefix + "rope.freq_base", attention.rope.theta},
      {prefix + "vocab_size", uint64_t{spec.vocab_size}},
  };
  AddFfn(spec.layers[0].ffn, prefix, list);
  ESSOR_RETURN_IF_ERROR(AddScaling(spec, attention.rope, prefix + "rope.scaling.", list));
  return list;
}

}  // namespace essor::client
