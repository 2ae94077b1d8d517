#include "model/checkpoint/gguf_names.h"

#include <array>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
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

// After "blk.N." and "model.layers.N."; without ".weight" or ".bias". The same in all families.
constexpr std::array<Names, 11> kLayer = {{
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
}};

// What the Hugging Face form of a family calls router and experts.
struct Family {
  std::string_view model_type;
  bool rope_permuted;            // rows of q and k in GGUF
  std::string_view router;       // empty: dense
  std::string_view experts;      // prefix of "<e>.<projection>"
  std::array<Names, 3> stacked;  // GGUF name and projection
};
constexpr std::array<Family, 5> kFamilies = {{
    {"llama", true, "", "", {}},
    {"qwen2", false, "", "", {}},
    {"mixtral",
     true,
     "block_sparse_moe.gate",
     "block_sparse_moe.experts.",
     {{{"ffn_gate_exps", "w1"}, {"ffn_up_exps", "w3"}, {"ffn_down_exps", "w2"}}}},
    {"qwen3", false, "", "", {}},
    {"qwen3_moe",
     false,
     "mlp.gate",
     "mlp.experts.",
     {{{"ffn_gate_exps", "gate_proj"},
       {"ffn_up_exps", "up_proj"},
       {"ffn_down_exps", "down_proj"}}}},
}};
constexpr std::string_view kRouter = "ffn_gate_inp";

absl::StatusOr<const Family*> FindFamily(const std::string& model_type) {
  for (const Family& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("model type ", model_type,
                   " has no GGUF form here (known: llama, mixtral, qwen2, qwen3, qwen3_moe)"));
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

template <size_t kSize>
std::string_view Translate(const std::array<Names, kSize>& table, std::string_view name,
                           std::string_view Names::*from, std::string_view Names::*to) {
  for (const Names& names : table) {
    if (names.*from == name) return names.*to;
  }
  return "";
}

// "experts.<e>.<projection>" after the family's prefix.
std::optional<GgufTensor> ExpertTensor(const Family& family, std::string_view stem) {
  if (family.experts.empty() || !TakePrefix(stem, family.experts)) return std::nullopt;
  const std::optional<uint32_t> expert = TakeNumber(stem);
  const std::string_view gguf = Translate(family.stacked, stem, &Names::hf, &Names::gguf);
  if (!expert || gguf.empty()) return std::nullopt;
  return GgufTensor{.name = std::string(gguf), .expert = expert, .rope_permuted = false};
}

}  // namespace

absl::StatusOr<GgufTensor> GgufTensorName(const std::string& model_type,
                                          const std::string& hf_name) {
  ESSOR_ASSIGN_OR_RETURN(const Family* const family, FindFamily(model_type));
  std::string_view stem;
  std::string suffix;
  if (!SplitSuffix(hf_name, stem, suffix)) return UnknownTensor(model_type, hf_name);
  if (const std::string_view name = Translate(kGlobal, stem, &Names::hf, &Names::gguf);
      !name.empty()) {
    return GgufTensor{
        .name = absl::StrCat(std::string(name), suffix), .expert = {}, .rope_permuted = false};
  }
  std::optional<uint32_t> layer;
  if (TakePrefix(stem, "model.layers.")) layer = TakeNumber(stem);
  if (!layer) return UnknownTensor(model_type, hf_name);

  GgufTensor tensor;
  if (const std::string_view name = Translate(kLayer, stem, &Names::hf, &Names::gguf);
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
  tensor.name = absl::StrCat("blk.", *layer, ".", tensor.name, suffix);
  return tensor;
}

absl::StatusOr<std::string> HfTensorName(const std::string& model_type,
                                         const std::string& gguf_name,
                                         std::optional<uint32_t> expert) {
  ESSOR_ASSIGN_OR_RETURN(const Family* const family, FindFamily(model_type));
  std::string_view stem;
  std::string suffix;
  if (!SplitSuffix(gguf_name, stem, suffix)) return UnknownTensor(model_type, gguf_name);
  if (const std::string_view name = Translate(kGlobal, stem, &Names::gguf, &Names::hf);
      !name.empty()) {
    return absl::StrCat(std::string(name), suffix);
  }
  std::optional<uint32_t> layer;
  if (TakePrefix(stem, "blk.")) layer = TakeNumber(stem);
  if (!layer) return UnknownTensor(model_type, gguf_name);

  std::string name(Translate(kLayer, stem, &Names::gguf, &Names::hf));
  if (name.empty() && stem == kRouter) name = std::string(family->router);
  if (name.empty() && !family->experts.empty()) {
    const std::string projection(Translate(family->stacked, stem, &Names::gguf, &Names::hf));
    if (!projection.empty() && !expert) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", gguf_name, " holds all experts: say which"));
    }
    if (!projection.empty()) {
      name = absl::StrCat(std::string(family->experts), *expert, ".", projection);
    }
  }
  if (name.empty()) return UnknownTensor(model_type, gguf_name);
  return absl::StrCat("model.layers.", *layer, ".", name, suffix);
}

bool IsStackedExperts(const std::string& gguf_name) {
  const std::string_view name = gguf_name;
  return name.ends_with("_exps.weight") || name.ends_with("_exps.bias");
}

}  // namespace essor::model
