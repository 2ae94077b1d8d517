// GgufConfigToHf of gguf_names.h.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_architectures.h"
#include "model/checkpoint/gguf_json.h"
#include "model/checkpoint/gguf_keys.h"
#include "model/checkpoint/gguf_metadata.h"
#include "model/checkpoint/gguf_names.h"
#include "model/checkpoint/gguf_rope.h"

namespace essor::model {
namespace {

// Far above any model's; products with it stay exact in double.
constexpr uint64_t kMaxHeadDim = 1u << 20;

absl::Status Bad(const GgufKeys& keys, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(keys.file().path(), ": ", problem));
}

absl::StatusOr<uint64_t> VocabularySize(GgufKeys& keys) {
  if (keys.Has("vocab_size")) return keys.Uint("vocab_size");
  const absl::StatusOr<TensorView> embedding = keys.file().Find("token_embd.weight");
  if (absl::IsNotFound(embedding.status())) {
    return absl::InvalidArgumentError(embedding.status().message());
  }
  ESSOR_RETURN_IF_ERROR(embedding.status());
  return embedding->shape[0];
}

absl::StatusOr<uint64_t> ReadLayers(GgufKeys& keys, const GgufArchitecture& architecture) {
  ESSOR_ASSIGN_OR_RETURN(const uint64_t blocks, keys.Uint("block_count"));
  if (!architecture.drafts) return blocks;
  ESSOR_ASSIGN_OR_RETURN(const uint64_t drafts, keys.Uint("nextn_predict_layers", 0));
  if (drafts < blocks || drafts == 0) return blocks - drafts;
  return keys.Bad("nextn_predict_layers",
                  absl::StrCat(" is ", drafts, " of ", blocks, " layers in all"));
}

// Of softmax attention.
absl::Status ReadHeads(GgufKeys& keys, const GgufArchitecture& architecture, uint64_t hidden,
                       GgufSizes& sizes) {
  ESSOR_ASSIGN_OR_RETURN(sizes.head_dim, keys.Uint("attention.key_length", hidden / sizes.heads));
  if (sizes.head_dim > kMaxHeadDim) {
    return keys.Bad("attention.key_length",
                    absl::StrCat(" is ", sizes.head_dim, "; the limit is ", kMaxHeadDim));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint64_t value_dim,
                         keys.Uint("attention.value_length", sizes.head_dim));
  if (value_dim != sizes.head_dim) {
    return keys.Bad("attention.value_length", absl::StrCat(" is ", value_dim, ", but keys have ",
                                                           sizes.head_dim, " dimensions"));
  }
  ESSOR_ASSIGN_OR_RETURN(sizes.rotary_dim, keys.Uint("rope.dimension_count", sizes.head_dim));
  if (sizes.rotary_dim != sizes.head_dim && !architecture.partial_rotation) {
    return keys.Bad("rope.dimension_count",
                    absl::StrCat(" is ", sizes.rotary_dim, ", but heads have ", sizes.head_dim,
                                 " dimensions: partial rotation is not supported"));
  }
  if (sizes.rotary_dim > sizes.head_dim || sizes.rotary_dim == 0) {
    return keys.Bad(
        "rope.dimension_count",
        absl::StrCat(" is ", sizes.rotary_dim, ", but heads have ", sizes.head_dim, " dimensions"));
  }
  if (sizes.rotary_dim % 2 != 0) {
    return Bad(keys, absl::StrCat("heads of ", sizes.rotary_dim, " dimensions cannot be rotated"));
  }
  return absl::OkStatus();
}

absl::StatusOr<GgufSizes> ReadSizes(GgufKeys& keys, const GgufArchitecture& architecture,
                                    uint64_t hidden, uint64_t ffn) {
  GgufSizes sizes;
  ESSOR_ASSIGN_OR_RETURN(sizes.layers, ReadLayers(keys, architecture));
  ESSOR_ASSIGN_OR_RETURN(sizes.heads, keys.Uint("attention.head_count"));
  if (sizes.heads == 0) return keys.Bad("attention.head_count", " is 0");
  if (!architecture.latent_attention) {
    ESSOR_RETURN_IF_ERROR(ReadHeads(keys, architecture, hidden, sizes));
  }
  ESSOR_ASSIGN_OR_RETURN(sizes.experts, keys.Uint("expert_count", 0));
  ESSOR_ASSIGN_OR_RETURN(sizes.experts_per_token, keys.Uint("expert_used_count", 0));
  ESSOR_ASSIGN_OR_RETURN(sizes.expert_ffn, keys.Uint("expert_feed_forward_length", ffn));
  return sizes;
}

absl::Status WriteTokenIds(const GgufFile& file, GgufJson& json) {
  absl::flat_hash_map<std::string, uint64_t> ids;
  // The ends of a turn and of a message to a tool end a sequence, too; the other form has one list.
  std::vector<uint64_t> ends;
  for (const char* const key : {"bos", "padding", "eos", "eot", "eom"}) {
    const absl::StatusOr<uint64_t> id =
        GgufUint(file, absl::StrCat("tokenizer.ggml.", key, "_token_id"));
    if (absl::IsNotFound(id.status())) continue;
    ESSOR_RETURN_IF_ERROR(id.status());
    ids.emplace(key, *id);
    const bool ends_sequence = key[0] == 'e';
    if (ends_sequence && std::find(ends.begin(), ends.end(), *id) == ends.end()) {
      ends.push_back(*id);
    }
  }
  if (ids.contains("bos")) json.Uint("bos_token_id", ids["bos"]);
  if (ids.contains("padding")) json.Uint("pad_token_id", ids["padding"]);
  if (!ids.contains("eos")) return absl::OkStatus();
  if (ends.size() == 1) {
    json.Uint("eos_token_id", ends[0]);
  } else {
    json.Uints("eos_token_id", ends);
  }
  return absl::OkStatus();
}

// What part of a head rotates, as the factor that readers multiply with.
absl::Status WritePartialRotation(GgufKeys& keys, const GgufSizes& sizes, GgufJson& json) {
  if (sizes.rotary_dim == sizes.head_dim) {
    json.Real("partial_rotary_factor", 1.0);
    return absl::OkStatus();
  }
  const auto head_dim = static_cast<double>(sizes.head_dim);
  const double factor = static_cast<double>(sizes.rotary_dim) / head_dim;
  if (static_cast<uint64_t>(head_dim * factor) != sizes.rotary_dim) {
    return keys.Bad("rope.dimension_count", absl::StrCat(" is ", sizes.rotary_dim, " of ",
                                                         sizes.head_dim, ": not supported"));
  }
  json.Real("partial_rotary_factor", factor);
  return absl::OkStatus();
}

absl::Status WriteAttention(GgufKeys& keys, const GgufArchitecture& architecture,
                            const GgufSizes& sizes, GgufJson& json) {
  json.Uint("num_attention_heads", sizes.heads);
  json.Bool("attention_bias", keys.file().Contains("blk.0.attn_q.bias"));
  json.Real("attention_dropout", 0.0);
  if (!architecture.latent_attention) {
    ESSOR_ASSIGN_OR_RETURN(const uint64_t kv_heads,
                           keys.Uint("attention.head_count_kv", sizes.heads));
    json.Uint("num_key_value_heads", kv_heads);
    json.Uint("head_dim", sizes.head_dim);
    if (architecture.partial_rotation) {
      ESSOR_RETURN_IF_ERROR(WritePartialRotation(keys, sizes, json));
    }
  }
  GgufRope rope{.rotary_dim = sizes.rotary_dim};
  ESSOR_ASSIGN_OR_RETURN(rope.theta, keys.Positive("rope.freq_base", 10000.0));
  json.Real("rope_theta", rope.theta);
  return WriteRopeScaling(keys, rope, json);
}

absl::Status WriteConfig(GgufKeys& keys, const GgufArchitecture& architecture, GgufJson& json) {
  ESSOR_ASSIGN_OR_RETURN(const uint64_t hidden, keys.Uint("embedding_length"));
  ESSOR_ASSIGN_OR_RETURN(uint64_t ffn, keys.Uint("feed_forward_length", 0));
  ESSOR_ASSIGN_OR_RETURN(const GgufSizes sizes, ReadSizes(keys, architecture, hidden, ffn));
  if (ffn == 0) ffn = sizes.expert_ffn;
  if (ffn == 0) return keys.Bad("feed_forward_length", " is missing");
  ESSOR_ASSIGN_OR_RETURN(const uint64_t context, keys.Uint("context_length"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t vocab, VocabularySize(keys));
  ESSOR_ASSIGN_OR_RETURN(const double eps, keys.Positive("attention.layer_norm_rms_epsilon"));
  json.Texts("architectures", {architecture.class_name});
  json.Text("model_type", architecture.model_type);
  json.Text("hidden_act", "silu");
  json.Uint("hidden_size", hidden);
  json.Uint("num_hidden_layers", sizes.layers);
  if (architecture.drafts) {
    ESSOR_ASSIGN_OR_RETURN(const uint64_t drafts, keys.Uint("nextn_predict_layers", 0));
    json.Uint("num_nextn_predict_layers", drafts);
  }
  json.Uint("max_position_embeddings", context);
  json.Real("rms_norm_eps", eps);
  json.Uint("vocab_size", vocab);
  json.Bool("tie_word_embeddings", !keys.file().Contains("output.weight"));
  json.Real("initializer_range", 0.02);
  json.Text("torch_dtype", "bfloat16");
  json.Bool("use_cache", true);
  json.Uint(architecture.dense_ffn, ffn);
  ESSOR_RETURN_IF_ERROR(WriteAttention(keys, architecture, sizes, json));
  ESSOR_RETURN_IF_ERROR(WriteTokenIds(keys.file(), json));
  if (architecture.write == nullptr) return absl::OkStatus();
  return architecture.write(keys, sizes, json);
}

}  // namespace

absl::StatusOr<std::string> GgufConfigToHf(const GgufFile& file) {
  ESSOR_ASSIGN_OR_RETURN(const GgufArchitecture* const architecture, FindGgufArchitecture(file));
  GgufKeys keys(file, architecture->name);
  GgufJson json;
  ESSOR_RETURN_IF_ERROR(WriteConfig(keys, *architecture, json));
  if (architecture->strict) ESSOR_RETURN_IF_ERROR(keys.RefuseOthers());
  return json.Finish();
}

}  // namespace essor::model
