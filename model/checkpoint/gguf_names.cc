#include "model/checkpoint/gguf_names.h"

#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

struct Names {
  std::string_view gguf;
  std::string_view hf;
};

// Outside the layers; without ".weight".
constexpr std::array<Names, 3> kGlobal = {{
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
}};

// After "blk.N." and "model.layers.N."; without ".weight" or ".bias". Those of all families but
// where their own differ.
constexpr std::array<Names, 14> kLayer = {{
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
    {"ffn_down_shexp", "mlp.shared_experts.down_proj"},
}};

// Layer names of one family, beside or instead of kLayer's.
constexpr std::array<Names, 10> kDeepseekV3 = {{
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_a_norm", "self_attn.q_a_layernorm"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"indexer.attn_q_b", "self_attn.indexer.wq_b"},  // V3.2
    {"indexer.attn_k", "self_attn.indexer.wk"},
    {"indexer.k_norm", "self_attn.indexer.k_norm"},
    {"indexer.proj", "self_attn.indexer.weights_proj"},
}};
constexpr std::array<Names, 3> kGlm4 = {{
    {"ffn_up", "mlp.gate_up_proj"},  // both in one, gate first
    {"post_attention_norm", "post_self_attn_layernorm"},
    {"post_ffw_norm", "post_mlp_layernorm"},
}};
constexpr std::array<Names, 1> kGlm4Moe = {{
    {"post_attention_norm", "post_attention_layernorm"},
}};
constexpr std::array<Names, 6> kLlama4 = {{
    {"ffn_gate", "feed_forward.gate_proj"},
    {"ffn_up", "feed_forward.up_proj"},
    {"ffn_down", "feed_forward.down_proj"},
    {"ffn_gate_shexp", "feed_forward.shared_expert.gate_proj"},
    {"ffn_up_shexp", "feed_forward.shared_expert.up_proj"},
    {"ffn_down_shexp", "feed_forward.shared_expert.down_proj"},
}};

// Stacked experts: GGUF's name and the projection.
using Projections = std::array<Names, 3>;
constexpr Projections kNumbered = {
    {{"ffn_gate_exps", "w1"}, {"ffn_up_exps", "w3"}, {"ffn_down_exps", "w2"}}};
constexpr Projections kNamed = {
    {{"ffn_gate_exps", "gate_proj"}, {"ffn_up_exps", "up_proj"}, {"ffn_down_exps", "down_proj"}}};

// What the Hugging Face form of a family calls its parts.
struct Family {
  std::string_view model_type;
  bool rope_permuted = false;            // rows of q and k in GGUF
  std::span<const Names> own = {};       // layer names
  std::string_view router = "";          // empty: dense
  std::string_view experts = "";         // prefix of "<e>.<projection>"
  const Projections* stacked = nullptr;  // null: dense
  std::string_view router_bias = "";     // the whole name; empty: none
};
constexpr Family kFamilies[] = {
    {.model_type = "llama", .rope_permuted = true},
    {.model_type = "qwen2"},
    {.model_type = "mixtral",
     .rope_permuted = true,
     .router = "block_sparse_moe.gate",
     .experts = "block_sparse_moe.experts.",
     .stacked = &kNumbered},
    {.model_type = "qwen3"},
    {.model_type = "qwen3_moe",
     .router = "mlp.gate",
     .experts = "mlp.experts.",
     .stacked = &kNamed},
    {.model_type = "deepseek_v3",
     .own = kDeepseekV3,
     .router = "mlp.gate",
     .experts = "mlp.experts.",
     .stacked = &kNamed,
     .router_bias = "mlp.gate.e_score_correction_bias"},
    {.model_type = "deepseek_v32",
     .own = kDeepseekV3,
     .router = "mlp.gate",
     .experts = "mlp.experts.",
     .stacked = &kNamed,
     .router_bias = "mlp.gate.e_score_correction_bias"},
    {.model_type = "ernie4_5"},
    {.model_type = "ernie4_5_moe",
     .router = "mlp.gate",
     .experts = "mlp.experts.",
     .stacked = &kNamed,
     .router_bias = "mlp.moe_statics.e_score_correction_bias"},
    {.model_type = "glm4", .own = kGlm4},
    {.model_type = "glm4_moe",
     .own = kGlm4Moe,
     .router = "mlp.gate",
     .experts = "mlp.experts.",
     .stacked = &kNamed,
     .router_bias = "mlp.gate.e_score_correction_bias"},
    {.model_type = "llama4_text",
     .own = kLlama4,
     .router = "feed_forward.router",
     .experts = "feed_forward.experts.",
     .stacked = &kNamed},
    {.model_type = "minimax_m2",
     .router = "block_sparse_moe.gate",
     .experts = "block_sparse_moe.experts.",
     .stacked = &kNumbered,
     .router_bias = "block_sparse_moe.e_score_correction_bias"},
};
constexpr std::string_view kRouter = "ffn_gate_inp";
constexpr std::string_view kRouterBias = "exp_probs_b.bias";

absl::StatusOr<const Family*> FindFamily(const std::string& model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  const auto name_of = [](std::string* out, const Family& family) {
    out->append(family.model_type);
  };
  return absl::InvalidArgumentError(absl::StrCat(
      "model type ", model_type,
      " has no GGUF form here (known: ", absl::StrJoin(kFamilies, ", ", name_of), ")"));
}

absl::Status UnknownTensor(const std::string& model_type, const std::string& name) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", name, " has no counterpart in the family ", model_type));
}

// Reads digits and the dot after them from the front of `text`.
std::optional<uint32_t> TakeNumber(std::string_view& text) {
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  uint32_t number = 0;
  if (!absl::SimpleAtoi(absl::string_view(text.data(), dot), &number)) return std::nullopt;
  text.remove_prefix(dot + 1);
  return number;
}

bool TakePrefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Splits "attn_q.weight" into stem and ".weight" or ".bias"; false for anything else.
bool SplitSuffix(std::string_view name, std::string_view& stem, std::string& suffix) {
  for (const std::string_view candidate : {".weight", ".bias"}) {
    if (!name.ends_with(candidate)) continue;
    stem = name.substr(0, name.size() - candidate.size());
    suffix = std::string(candidate);
    return true;
  }
  return false;
}

std::string_view Translate(std::span<const Names> table, std::string_view name,
                           std::string_view Names::*from, std::string_view Names::*to) {
  for (const Names& names : table) {
    if (names.*from == name) return names.*to;
  }
  return "";
}

// Of a layer: the family's own names come first.
std::string_view TranslateLayer(const Family& family, std::string_view name,
                                std::string_view Names::*from, std::string_view Names::*to) {
  const std::string_view own = Translate(family.own, name, from, to);
  return own.empty() ? Translate(kLayer, name, from, to) : own;
}

// What stands between the layer's number and the end of a layer's tensor name; nullopt for others.
std::optional<std::string_view> TakeLayer(std::string_view name, std::string_view prefix,
                                          uint32_t& layer) {
  if (!TakePrefix(name, prefix)) return std::nullopt;
  const std::optional<uint32_t> number = TakeNumber(name);
  if (!number) return std::nullopt;
  layer = *number;
  return name;
}

// "experts.<e>.<projection>" after the family's prefix.
std::optional<GgufTensor> ExpertTensor(const Family& family, std::string_view stem) {
  if (family.experts.empty() || !TakePrefix(stem, family.experts)) return std::nullopt;
  const std::optional<uint32_t> expert = TakeNumber(stem);
  const std::string_view gguf = Translate(*family.stacked, stem, &Names::hf, &Names::gguf);
  if (!expert || gguf.empty()) return std::nullopt;
  return GgufTensor{.name = std::string(gguf), .expert = expert, .rope_permuted = false};
}

}  // namespace

absl::StatusOr<GgufTensor> GgufTensorName(const std::string& model_type,
                                          const std::string& hf_name) {
  ESSOR_ASSIGN_OR_RETURN(const Family* const family, FindFamily(model_type));
  uint32_t layer = 0;
  const auto in_layer = TakeLayer(hf_name, "model.layers.", layer);
  if (in_layer && !family->router_bias.empty() && *in_layer == family->router_bias) {
    return GgufTensor{.name = absl::StrCat("blk.", layer, ".", std::string(kRouterBias)),
                      .expert = {},
                      .rope_permuted = false};
  }
  std::string_view stem;
  std::string suffix;
  if (!SplitSuffix(in_layer.value_or(hf_name), stem, suffix)) {
    return UnknownTensor(model_type, hf_name);
  }
  if (const std::string_view name = Translate(kGlobal, stem, &Names::hf, &Names::gguf);
      !name.empty()) {
    return GgufTensor{
        .name = absl::StrCat(std::string(name), suffix), .expert = {}, .rope_permuted = false};
  }
  if (!in_layer) return UnknownTensor(model_type, hf_name);

  GgufTensor tensor;
  if (const std::string_view name = TranslateLayer(*family, stem, &Names::hf, &Names::gguf);
      !name.empty()) {
    tensor.name = std::string(name);
    tensor.rope_permuted = family->rope_permuted && (name == "attn_q" || name == "attn_k");
  } else if (!family->router.empty() && stem == family->router) {
    tensor.name = std::string(kRouter);
  } else if (std::optional<GgufTensor> expert = ExpertTensor(*family, stem)) {
    tensor = *std::move(expert);
  } else {
    return UnknownTensor(model_type, hf_name);
  }
  tensor.name = absl::StrCat("blk.", layer, ".", tensor.name, suffix);
  return tensor;
}

absl::StatusOr<std::string> HfTensorName(const std::string& model_type,
                                         const std::string& gguf_name,
                                         std::optional<uint32_t> expert) {
  ESSOR_ASSIGN_OR_RETURN(const Family* const family, FindFamily(model_type));
  uint32_t layer = 0;
  const auto in_layer = TakeLayer(gguf_name, "blk.", layer);
  if (in_layer && !family->router_bias.empty() && *in_layer == kRouterBias) {
    return absl::StrCat("model.layers.", layer, ".", std::string(family->router_bias));
  }
  std::string_view stem;
  std::string suffix;
  if (!SplitSuffix(in_layer.value_or(gguf_name), stem, suffix)) {
    return UnknownTensor(model_type, gguf_name);
  }
  if (const std::string_view name = Translate(kGlobal, stem, &Names::gguf, &Names::hf);
      !name.empty()) {
    return absl::StrCat(std::string(name), suffix);
  }
  if (!in_layer) return UnknownTensor(model_type, gguf_name);

  std::string name(TranslateLayer(*family, stem, &Names::gguf, &Names::hf));
  if (name.empty() && stem == kRouter) name = std::string(family->router);
  if (name.empty() && !family->experts.empty()) {
    const std::string projection(Translate(*family->stacked, stem, &Names::gguf, &Names::hf));
    if (!projection.empty() && !expert) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", gguf_name, " holds all experts: say which"));
    }
    if (!projection.empty()) {
      name = absl::StrCat(std::string(family->experts), *expert, ".", projection);
    }
  }
  if (name.empty()) return UnknownTensor(model_type, gguf_name);
  return absl::StrCat("model.layers.", layer, ".", name, suffix);
}

bool IsStackedExperts(const std::string& gguf_name) {
  const std::string_view name = gguf_name;
  return name.ends_with("_exps.weight") || name.ends_with("_exps.bias");
}

}  // namespace essor::model
