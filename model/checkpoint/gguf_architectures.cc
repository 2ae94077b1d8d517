// Meanings of keys and their defaults: llama.cpp, src/models/<architecture>.cpp (readers) and
// conversion/*.py (writers).
#include "model/checkpoint/gguf_architectures.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_metadata.h"

namespace essor::model {
namespace {

// expert_gating_func, llama.cpp's llama_expert_gating_func_type.
constexpr uint64_t kSoftmaxGating = 1;
constexpr uint64_t kSigmoidGating = 2;

absl::Status CheckExperts(const GgufKeys& keys, const GgufSizes& sizes) {
  if (sizes.experts_per_token == 0 || sizes.experts_per_token > sizes.experts) {
    return keys.Bad("expert_used_count", absl::StrCat(" is ", sizes.experts_per_token, " of ",
                                                      sizes.experts, " experts"));
  }
  return absl::OkStatus();
}

absl::Status CheckGating(GgufKeys& keys, uint64_t wanted, std::optional<uint64_t> missing) {
  const std::string key = "expert_gating_func";
  ESSOR_ASSIGN_OR_RETURN(const uint64_t gating, keys.Uint(key, missing));
  if (gating == wanted) return absl::OkStatus();
  return keys.Bad(key,
                  absl::StrCat(" is ", gating, ", but only ", wanted, " (",
                               wanted == kSigmoidGating ? "sigmoid" : "softmax", ") is supported"));
}

absl::Status WriteLlama(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  if (sizes.experts == 0) {
    json.Bool("mlp_bias", keys.file().Contains("blk.0.ffn_gate.bias"));
    return absl::OkStatus();
  }
  ESSOR_RETURN_IF_ERROR(CheckExperts(keys, sizes));
  json.Uint("num_local_experts", sizes.experts);
  json.Uint("num_experts_per_tok", sizes.experts_per_token);
  json.Bool("output_router_logits", false);
  json.Null("sliding_window");
  return absl::OkStatus();
}

absl::Status WriteQwen3Moe(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  ESSOR_RETURN_IF_ERROR(CheckExperts(keys, sizes));
  json.Uint("num_experts", sizes.experts);
  json.Uint("num_experts_per_tok", sizes.experts_per_token);
  json.Bool("output_router_logits", false);
  json.Null("sliding_window");
  ESSOR_ASSIGN_OR_RETURN(const bool normalised, keys.Bool("expert_weights_norm", true));
  json.Uint("moe_intermediate_size", sizes.expert_ffn);
  json.Bool("norm_topk_prob", normalised);
  json.Uint("decoder_sparse_step", 1);
  json.Uints("mlp_only_layers", {});
  return absl::OkStatus();
}

// Experts of which each token's weights are a sigmoid's, some of them shared, behind some dense
// layers (deepseek2, glm4moe).
absl::Status WriteSigmoidExperts(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  ESSOR_RETURN_IF_ERROR(CheckExperts(keys, sizes));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t shared, keys.Uint("expert_shared_count"));
  ESSOR_ASSIGN_OR_RETURN(const double scale, keys.Positive("expert_weights_scale", 1.0));
  ESSOR_ASSIGN_OR_RETURN(const bool normalised, keys.Bool("expert_weights_norm", false));
  json.Uint("n_routed_experts", sizes.experts);
  json.Uint("num_experts_per_tok", sizes.experts_per_token);
  json.Uint("n_shared_experts", shared);
  json.Uint("moe_intermediate_size", sizes.expert_ffn);
  json.Real("routed_scaling_factor", scale);
  json.Bool("norm_topk_prob", normalised);
  return absl::OkStatus();
}

absl::Status WriteGroups(GgufKeys& keys, std::optional<uint64_t> missing, GgufJson& json) {
  const std::string key = "expert_group_count";
  if (!missing.has_value() && !keys.Has(key)) {
    return keys.Bad(key,
                    " is missing: the file does not say in which groups experts are chosen "
                    "(files that llama.cpp wrote since October 2025 do)");
  }
  ESSOR_ASSIGN_OR_RETURN(const uint64_t groups, keys.Uint(key, missing));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t used, keys.Uint("expert_group_used_count", missing));
  json.Uint("n_group", groups);
  json.Uint("topk_group", used);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> WriteDenseLayers(GgufKeys& keys, GgufJson& json) {
  ESSOR_ASSIGN_OR_RETURN(const uint64_t dense, keys.Uint("leading_dense_block_count", 0));
  json.Uint("first_k_dense_replace", dense);
  return dense;
}

// Files before May 2025 say the width of a head where later ones say that of the latent form, and
// have no *_mla keys.
absl::Status WriteLatentHeads(GgufKeys& keys, GgufJson& json) {
  const std::string suffix =
      keys.Has("attention.key_length_mla") || keys.Has("attention.value_length_mla") ? "_mla" : "";
  // Of the latent form, they follow from the ranks.
  ESSOR_RETURN_IF_ERROR(keys.Uint("attention.key_length", 0).status());
  ESSOR_RETURN_IF_ERROR(keys.Uint("attention.value_length", 0).status());
  ESSOR_RETURN_IF_ERROR(keys.Uint("attention.head_count_kv", 0).status());
  ESSOR_ASSIGN_OR_RETURN(const uint64_t rotary, keys.Uint("rope.dimension_count"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t key, keys.Uint("attention.key_length" + suffix));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t value, keys.Uint("attention.value_length" + suffix));
  if (key <= rotary) {
    return keys.Bad("attention.key_length" + suffix,
                    absl::StrCat(" is ", key, ", of which ", rotary,
                                 " rotate (rope.dimension_count): nothing is left"));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint64_t kv_rank, keys.Uint("attention.kv_lora_rank"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t q_rank, keys.Uint("attention.q_lora_rank", 0));
  json.Uint("kv_lora_rank", kv_rank);
  if (q_rank != 0) {
    json.Uint("q_lora_rank", q_rank);
  } else {
    json.Null("q_lora_rank");
  }
  json.Uint("qk_rope_head_dim", rotary);
  json.Uint("qk_nope_head_dim", key - rotary);
  json.Uint("v_head_dim", value);
  return absl::OkStatus();
}

absl::Status WriteDeepseek2(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  ESSOR_RETURN_IF_ERROR(WriteLatentHeads(keys, json));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t dense, WriteDenseLayers(keys, json));
  if (dense < sizes.layers) {
    if (!keys.Has("expert_gating_func")) {
      return keys.Bad("expert_gating_func",
                      " is missing, which means DeepSeek V2's softmax router: not supported");
    }
    ESSOR_RETURN_IF_ERROR(CheckGating(keys, kSigmoidGating, std::nullopt));
    ESSOR_RETURN_IF_ERROR(WriteGroups(keys, std::nullopt, json));
    return WriteSigmoidExperts(keys, sizes, json);
  }
  // Of no use without experts.
  for (const char* key : {"expert_shared_count", "expert_gating_func", "expert_group_count",
                          "expert_group_used_count"}) {
    ESSOR_RETURN_IF_ERROR(keys.Uint(key, 0).status());
  }
  ESSOR_RETURN_IF_ERROR(keys.Bool("expert_weights_norm", false).status());
  return keys.Positive("expert_weights_scale", 1.0).status();
}

// V3.2: the same with an indexer.
absl::Status WriteDeepseek32(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  ESSOR_ASSIGN_OR_RETURN(const uint64_t heads, keys.Uint("attention.indexer.head_count"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t dim, keys.Uint("attention.indexer.key_length"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t top_k, keys.Uint("attention.indexer.top_k"));
  json.Uint("index_n_heads", heads);
  json.Uint("index_head_dim", dim);
  json.Uint("index_topk", top_k);
  return WriteDeepseek2(keys, sizes, json);
}

absl::Status WriteGlm4Moe(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  json.Bool("use_qk_norm", keys.file().Contains("blk.0.attn_q_norm.weight"));
  ESSOR_RETURN_IF_ERROR(CheckGating(keys, kSigmoidGating, kSigmoidGating));
  // No released model of this architecture has groups.
  ESSOR_RETURN_IF_ERROR(WriteGroups(keys, 1, json));
  ESSOR_RETURN_IF_ERROR(WriteDenseLayers(keys, json).status());
  return WriteSigmoidExperts(keys, sizes, json);
}

absl::Status WriteErnieMoe(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  ESSOR_RETURN_IF_ERROR(CheckExperts(keys, sizes));
  ESSOR_RETURN_IF_ERROR(CheckGating(keys, kSoftmaxGating, kSoftmaxGating));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t interval, keys.Uint("interleave_moe_layer_step"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t first, keys.Uint("leading_dense_block_count", 0));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t shared, keys.Uint("expert_shared_count", 0));
  // Writers derive this width from numbers that only happen to give it; the tensors' shapes are
  // checked against the count.
  ESSOR_RETURN_IF_ERROR(keys.Uint("expert_shared_feed_forward_length", 0).status());
  json.Uint("moe_num_experts", sizes.experts);
  json.Uint("moe_k", sizes.experts_per_token);
  json.Uint("moe_intermediate_size", sizes.expert_ffn);
  json.Uint("moe_num_shared_experts", shared);
  json.Uint("moe_layer_interval", interval);
  json.Uint("moe_layer_start_index", first);
  json.Uint("moe_layer_end_index", sizes.layers - 1);
  return absl::OkStatus();
}

absl::Status WriteMiniMaxM2(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  ESSOR_RETURN_IF_ERROR(CheckExperts(keys, sizes));
  ESSOR_RETURN_IF_ERROR(CheckGating(keys, kSigmoidGating, std::nullopt));
  json.Uint("num_local_experts", sizes.experts);
  json.Uint("num_experts_per_tok", sizes.experts_per_token);
  json.Bool("use_qk_norm", keys.file().Contains("blk.0.attn_q_norm.weight"));
  json.Bool("use_routing_bias", keys.file().Contains("blk.0.exp_probs_b.bias"));
  json.Uint("num_mtp_modules", 0);
  return absl::OkStatus();
}

// The file has no keys for most of what is Llama 4's own: readers use the published values.
absl::Status WriteLlama4(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  constexpr uint64_t kChunk = 8192;
  constexpr uint64_t kMaverickExperts = 128;
  ESSOR_RETURN_IF_ERROR(CheckExperts(keys, sizes));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t chunk, keys.Uint("attention.sliding_window", kChunk));
  if (chunk != kChunk) {
    return keys.Bad("attention.sliding_window",
                    absl::StrCat(" is ", chunk, ", but Llama 4's chunks have ", kChunk));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint64_t step, keys.Uint("interleave_moe_layer_step"));
  json.Uint("intermediate_size", sizes.expert_ffn);
  json.Uint("num_local_experts", sizes.experts);
  json.Uint("num_experts_per_tok", sizes.experts_per_token);
  json.Uint("interleave_moe_layer_step", step);
  json.Uint("attention_chunk_size", chunk);
  json.Uint("no_rope_layer_interval", 4);
  json.Bool("attn_temperature_tuning", true);
  json.Real("attn_scale", 0.1);
  json.Uint("floor_scale", 8192);
  json.Bool("use_qk_norm", sizes.experts != kMaverickExperts);
  return absl::OkStatus();
}

constexpr GgufArchitecture kArchitectures[] = {
    {.name = "deepseek2",
     .model_type = "deepseek_v3",
     .class_name = "DeepseekV3ForCausalLM",
     .latent_attention = true,
     .drafts = true,
     .write = WriteDeepseek2},
    {.name = "deepseek32",
     .model_type = "deepseek_v32",
     .class_name = "DeepseekV32ForCausalLM",
     .latent_attention = true,
     .drafts = true,
     .write = WriteDeepseek32},
    {.name = "ernie4_5", .model_type = "ernie4_5", .class_name = "Ernie4_5ForCausalLM"},
    {.name = "ernie4_5-moe",
     .model_type = "ernie4_5_moe",
     .class_name = "Ernie4_5_MoeForCausalLM",
     .write = WriteErnieMoe},
    {.name = "glm4",
     .model_type = "glm4",
     .class_name = "Glm4ForCausalLM",
     .partial_rotation = true},
    {.name = "glm4moe",
     .model_type = "glm4_moe",
     .class_name = "Glm4MoeForCausalLM",
     .partial_rotation = true,
     .drafts = true,
     .write = WriteGlm4Moe},
    {.name = "llama",
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .strict = false,
     .write = WriteLlama},
    {.name = "llama4",
     .model_type = "llama4_text",
     .class_name = "Llama4ForCausalLM",
     .dense_ffn = "intermediate_size_mlp",
     .write = WriteLlama4},
    {.name = "minimax-m2",
     .model_type = "minimax_m2",
     .class_name = "MiniMaxM2ForCausalLM",
     .partial_rotation = true,
     .write = WriteMiniMaxM2},
    {.name = "qwen2", .model_type = "qwen2", .class_name = "Qwen2ForCausalLM", .strict = false},
    {.name = "qwen3", .model_type = "qwen3", .class_name = "Qwen3ForCausalLM", .strict = false},
    {.name = "qwen3moe",
     .model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .strict = false,
     .write = WriteQwen3Moe},
};
// The architecture "llama" where it has experts.
constexpr GgufArchitecture kMixtral = {.name = "llama",
                                       .model_type = "mixtral",
                                       .class_name = "MixtralForCausalLM",
                                       .strict = false,
                                       .write = WriteLlama};

bool HasExperts(const GgufFile& file) {
  const absl::StatusOr<uint64_t> experts = GgufUint(file, "llama.expert_count");
  return experts.ok() && *experts > 0;
}

}  // namespace

absl::StatusOr<const GgufArchitecture*> FindGgufArchitecture(const GgufFile& file) {
  absl::StatusOr<std::string> name = GgufString(file, "general.architecture");
  if (absl::IsNotFound(name.status())) {
    return absl::InvalidArgumentError(name.status().message());
  }
  ESSOR_RETURN_IF_ERROR(name.status());
  for (const GgufArchitecture& architecture : kArchitectures) {
    if (*name != architecture.name) continue;
    return *name == kMixtral.name && HasExperts(file) ? &kMixtral : &architecture;
  }
  const auto name_of = [](std::string* out, const GgufArchitecture& architecture) {
    out->append(architecture.name);
  };
  return absl::InvalidArgumentError(absl::StrCat(
      file.path(), ": general.architecture ", *name,
      " is not supported (known: ", absl::StrJoin(kArchitectures, ", ", name_of), ")"));
}

}  // namespace essor::model
