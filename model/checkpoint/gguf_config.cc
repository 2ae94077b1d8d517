// GgufConfigToHf of gguf_names.h.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_metadata.h"
#include "model/checkpoint/gguf_names.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"

namespace essor::model {
namespace {

using JsonWriter = rapidjson::PrettyWriter<rapidjson::StringBuffer>;

constexpr char kRopeFactors[] = "rope_freqs.weight";

// What every family has.
struct CommonConfig {
  uint64_t layers = 0;
  uint64_t hidden = 0;
  uint64_t ffn = 0;
  uint64_t heads = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
  uint64_t context = 0;
  uint64_t vocab = 0;
  uint64_t experts = 0;
  uint64_t experts_per_token = 0;
  uint64_t expert_ffn = 0;
  double rope_theta = 0;
  double eps = 0;
};

absl::Status Bad(const GgufFile& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", what));
}

// A missing key is a fault of the file, not of the caller's path.
template <typename T>
absl::StatusOr<T> Required(absl::StatusOr<T> value) {
  if (!absl::IsNotFound(value.status())) return value;
  return absl::InvalidArgumentError(value.status().message());
}

// The decimal number meant by a value that was stored as float32: 1e-05, not 9.99999975e-06.
double ShortestFloat(double stored) {
  char text[64];
  const auto result = std::to_chars(text, text + sizeof(text) - 1, static_cast<float>(stored));
  *result.ptr = '\0';
  return std::strtod(text, nullptr);
}

// A number that JSON can hold.
absl::StatusOr<double> PositiveReal(const GgufFile& file, const std::string& key,
                                    std::optional<double> missing) {
  absl::StatusOr<double> value = GgufReal(file, key);
  if (missing) value = GgufOr(value, *missing);
  ESSOR_ASSIGN_OR_RETURN(const double stored, Required(value));
  if (!(stored > 0.0) || stored > std::numeric_limits<float>::max()) {
    return Bad(file, absl::StrCat("metadata key ", key, " must be a positive number"));
  }
  return ShortestFloat(stored);
}

absl::StatusOr<uint64_t> VocabularySize(const GgufFile& file, const std::string& architecture) {
  const absl::StatusOr<uint64_t> stated = GgufUint(file, architecture + ".vocab_size");
  if (!absl::IsNotFound(stated.status())) return stated;
  ESSOR_ASSIGN_OR_RETURN(const TensorView embedding, Required(file.Find("token_embd.weight")));
  return embedding.shape[0];
}

absl::StatusOr<CommonConfig> ReadCommon(const GgufFile& file, const std::string& architecture) {
  const auto required = [&](const char* key) {
    return Required(GgufUint(file, absl::StrCat(architecture, ".", key)));
  };
  const auto optional = [&](const char* key, uint64_t missing) {
    return GgufOr(GgufUint(file, absl::StrCat(architecture, ".", key)), missing);
  };
  CommonConfig config;
  ESSOR_ASSIGN_OR_RETURN(config.layers, required("block_count"));
  ESSOR_ASSIGN_OR_RETURN(config.hidden, required("embedding_length"));
  ESSOR_ASSIGN_OR_RETURN(config.heads, required("attention.head_count"));
  ESSOR_ASSIGN_OR_RETURN(config.context, required("context_length"));
  if (config.heads == 0) {
    return Bad(file, absl::StrCat("metadata key ", architecture, ".attention.head_count is 0"));
  }
  ESSOR_ASSIGN_OR_RETURN(config.kv_heads, optional("attention.head_count_kv", config.heads));
  ESSOR_ASSIGN_OR_RETURN(config.head_dim,
                         optional("attention.key_length", config.hidden / config.heads));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t rope_dim,
                         optional("rope.dimension_count", config.head_dim));
  if (rope_dim != config.head_dim) {
    return Bad(file, absl::StrCat("metadata key ", architecture, ".rope.dimension_count is ",
                                  rope_dim, ", but heads have ", config.head_dim,
                                  " dimensions: partial rotation is not supported"));
  }
  if (config.head_dim == 0 || config.head_dim % 2 != 0) {
    return Bad(file, absl::StrCat("heads of ", config.head_dim, " dimensions cannot be rotated"));
  }
  ESSOR_ASSIGN_OR_RETURN(config.experts, optional("expert_count", 0));
  ESSOR_ASSIGN_OR_RETURN(config.experts_per_token, optional("expert_used_count", 0));
  ESSOR_ASSIGN_OR_RETURN(config.ffn, optional("feed_forward_length", 0));
  ESSOR_ASSIGN_OR_RETURN(config.expert_ffn, optional("expert_feed_forward_length", config.ffn));
  if (config.ffn == 0) config.ffn = config.expert_ffn;
  if (config.ffn == 0) {
    return Bad(file,
               absl::StrCat("metadata key ", architecture, ".feed_forward_length is missing"));
  }
  ESSOR_ASSIGN_OR_RETURN(config.vocab, VocabularySize(file, architecture));
  ESSOR_ASSIGN_OR_RETURN(config.rope_theta,
                         PositiveReal(file, architecture + ".rope.freq_base", 10000.0));
  ESSOR_ASSIGN_OR_RETURN(
      config.eps,
      PositiveReal(file, architecture + ".attention.layer_norm_rms_epsilon", std::nullopt));
  return config;
}

// Llama 3.1's rule (rope_type "llama3"). The format keeps only the divisor that each frequency gets
// (rope_freqs.weight); `essor convert` adds the rule's other parameters as keys, elsewhere they are
// those of every released model.
struct Llama3Rope {
  double factor = 1.0;
  double low_factor = 1.0;
  double high_factor = 4.0;
  uint64_t original_context = 8192;
};

double Llama3Divisor(const Llama3Rope& rope, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const auto original = static_cast<double>(rope.original_context);
  if (wavelength < original / rope.high_factor) return 1.0;
  if (wavelength > original / rope.low_factor) return rope.factor;
  const double smooth =
      (original / wavelength - rope.low_factor) / (rope.high_factor - rope.low_factor);
  return 1.0 / ((1.0 - smooth) / rope.factor + smooth);
}

// The rule's factor is its largest divisor; every other divisor then has to agree.
absl::StatusOr<Llama3Rope> RecogniseLlama3(const GgufFile& file, const std::string& prefix,
                                           const CommonConfig& config) {
  Llama3Rope rope;
  ESSOR_ASSIGN_OR_RETURN(rope.low_factor,
                         PositiveReal(file, prefix + "low_freq_factor", rope.low_factor));
  ESSOR_ASSIGN_OR_RETURN(rope.high_factor,
                         PositiveReal(file, prefix + "high_freq_factor", rope.high_factor));
  ESSOR_ASSIGN_OR_RETURN(
      rope.original_context,
      GgufOr(GgufUint(file, prefix + "original_context_length"), rope.original_context));
  ESSOR_ASSIGN_OR_RETURN(const TensorView tensor, file.Find(kRopeFactors));
  const uint64_t pairs = config.head_dim / 2;
  if (tensor.shape != std::vector<uint64_t>{pairs}) {
    return Bad(file, absl::StrCat("tensor ", kRopeFactors, ": its shape must be [", pairs, "]"));
  }
  std::vector<float> divisors(pairs);
  ESSOR_RETURN_IF_ERROR(DecodeToFloat(tensor, 0, std::span(divisors)));
  for (const float divisor : divisors) {
    if (std::isfinite(divisor)) rope.factor = std::max(rope.factor, ShortestFloat(divisor));
  }
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim);
    const double expected = Llama3Divisor(rope, std::pow(config.rope_theta, -exponent));
    // The file's divisors went through float32 several times.
    if (!(std::abs(divisors[i] - expected) <= 1e-3 * expected)) {
      return Bad(file, absl::StrCat("tensor ", kRopeFactors,
                                    ": its factors do not follow Llama 3.1's rule"));
    }
  }
  return rope;
}

absl::Status WriteRopeScaling(const GgufFile& file, const std::string& architecture,
                              const CommonConfig& config, JsonWriter& json) {
  const std::string prefix = architecture + ".rope.scaling.";
  json.Key("rope_scaling");
  if (file.Contains(kRopeFactors)) {
    ESSOR_ASSIGN_OR_RETURN(const Llama3Rope rope, RecogniseLlama3(file, prefix, config));
    json.StartObject();
    json.Key("rope_type"), json.String("llama3");
    json.Key("factor"), json.Double(rope.factor);
    json.Key("low_freq_factor"), json.Double(rope.low_factor);
    json.Key("high_freq_factor"), json.Double(rope.high_factor);
    json.Key("original_max_position_embeddings"), json.Uint64(rope.original_context);
    json.EndObject();
    return absl::OkStatus();
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string type,
                         GgufOr(GgufString(file, prefix + "type"), std::string("none")));
  if (type == "none") {
    json.Null();
    return absl::OkStatus();
  }
  if (type != "linear" && type != "yarn") {
    return Bad(file, absl::StrCat("metadata key ", prefix, "type: unknown scaling ", type));
  }
  ESSOR_ASSIGN_OR_RETURN(const double factor, PositiveReal(file, prefix + "factor", std::nullopt));
  json.StartObject();
  json.Key("rope_type"), json.String(type.c_str());
  json.Key("factor"), json.Double(factor);
  if (type == "yarn") {
    ESSOR_ASSIGN_OR_RETURN(const uint64_t original,
                           Required(GgufUint(file, prefix + "original_context_length")));
    json.Key("original_max_position_embeddings"), json.Uint64(original);
  }
  json.EndObject();
  return absl::OkStatus();
}

absl::Status WriteTokenIds(const GgufFile& file, JsonWriter& json) {
  absl::flat_hash_map<std::string, uint64_t> ids;
  for (const char* const key : {"bos", "eos", "eot", "padding"}) {
    const absl::StatusOr<uint64_t> id =
        GgufUint(file, absl::StrCat("tokenizer.ggml.", key, "_token_id"));
    if (id.ok()) ids.emplace(key, *id);
    if (!id.ok() && !absl::IsNotFound(id.status())) return id.status();
  }
  if (ids.contains("bos")) json.Key("bos_token_id"), json.Uint64(ids["bos"]);
  if (ids.contains("padding")) json.Key("pad_token_id"), json.Uint64(ids["padding"]);
  if (!ids.contains("eos")) return absl::OkStatus();
  json.Key("eos_token_id");
  // The end of a turn ends a sequence, too; the other form has one list for both.
  if (!ids.contains("eot") || ids["eot"] == ids["eos"]) {
    json.Uint64(ids["eos"]);
    return absl::OkStatus();
  }
  json.StartArray(), json.Uint64(ids["eos"]), json.Uint64(ids["eot"]), json.EndArray();
  return absl::OkStatus();
}

void WriteCommon(const GgufFile& file, const CommonConfig& config, JsonWriter& json) {
  json.Key("hidden_act"), json.String("silu");
  json.Key("hidden_size"), json.Uint64(config.hidden);
  json.Key("intermediate_size"), json.Uint64(config.ffn);
  json.Key("num_hidden_layers"), json.Uint64(config.layers);
  json.Key("num_attention_heads"), json.Uint64(config.heads);
  json.Key("num_key_value_heads"), json.Uint64(config.kv_heads);
  json.Key("head_dim"), json.Uint64(config.head_dim);
  json.Key("max_position_embeddings"), json.Uint64(config.context);
  json.Key("rms_norm_eps"), json.Double(config.eps);
  json.Key("rope_theta"), json.Double(config.rope_theta);
  json.Key("vocab_size"), json.Uint64(config.vocab);
  json.Key("tie_word_embeddings"), json.Bool(!file.Contains("output.weight"));
  json.Key("attention_bias"), json.Bool(file.Contains("blk.0.attn_q.bias"));
  json.Key("attention_dropout"), json.Double(0.0);
  json.Key("initializer_range"), json.Double(0.02);
  json.Key("torch_dtype"), json.String("bfloat16");
  json.Key("use_cache"), json.Bool(true);
}

absl::Status WriteExperts(const GgufFile& file, const std::string& architecture,
                          const CommonConfig& config, JsonWriter& json) {
  if (config.experts_per_token == 0 || config.experts_per_token > config.experts) {
    return Bad(file, absl::StrCat("metadata key ", architecture, ".expert_used_count is ",
                                  config.experts_per_token, " of ", config.experts, " experts"));
  }
  const bool mixtral = architecture == "llama";
  json.Key(mixtral ? "num_local_experts" : "num_experts"), json.Uint64(config.experts);
  json.Key("num_experts_per_tok"), json.Uint64(config.experts_per_token);
  json.Key("output_router_logits"), json.Bool(false);
  json.Key("sliding_window"), json.Null();
  if (mixtral) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const bool normalised,
                         GgufOr(GgufBool(file, architecture + ".expert_weights_norm"), true));
  json.Key("moe_intermediate_size"), json.Uint64(config.expert_ffn);
  json.Key("norm_topk_prob"), json.Bool(normalised);
  json.Key("decoder_sparse_step"), json.Uint64(1);
  json.Key("mlp_only_layers"), json.StartArray(), json.EndArray();
  return absl::OkStatus();
}

struct ModelType {
  const char* model_type;
  const char* class_name;
};

absl::StatusOr<ModelType> TypeOf(const GgufFile& file, const std::string& architecture,
                                 uint64_t experts) {
  if (architecture == "llama" && experts == 0) return ModelType{"llama", "LlamaForCausalLM"};
  if (architecture == "llama") return ModelType{"mixtral", "MixtralForCausalLM"};
  if (architecture == "qwen2") return ModelType{"qwen2", "Qwen2ForCausalLM"};
  if (architecture == "qwen3") return ModelType{"qwen3", "Qwen3ForCausalLM"};
  if (architecture == "qwen3moe") return ModelType{"qwen3_moe", "Qwen3MoeForCausalLM"};
  return Bad(file, absl::StrCat("general.architecture ", architecture,
                                " is not supported (known: llama, qwen2, qwen3, qwen3moe)"));
}

}  // namespace

absl::StatusOr<std::string> GgufConfigToHf(const GgufFile& file) {
  ESSOR_ASSIGN_OR_RETURN(const std::string architecture,
                         Required(GgufString(file, "general.architecture")));
  ESSOR_RETURN_IF_ERROR(TypeOf(file, architecture, 0).status());  // before keys are missed
  ESSOR_ASSIGN_OR_RETURN(const CommonConfig config, ReadCommon(file, architecture));
  ESSOR_ASSIGN_OR_RETURN(const ModelType type, TypeOf(file, architecture, config.experts));

  rapidjson::StringBuffer buffer;
  JsonWriter json(buffer);
  json.SetIndent(' ', 2);
  json.StartObject();
  json.Key("architectures"), json.StartArray(), json.String(type.class_name), json.EndArray();
  json.Key("model_type"), json.String(type.model_type);
  WriteCommon(file, config, json);
  ESSOR_RETURN_IF_ERROR(WriteTokenIds(file, json));
  ESSOR_RETURN_IF_ERROR(WriteRopeScaling(file, architecture, config, json));
  if (config.experts > 0) {
    ESSOR_RETURN_IF_ERROR(WriteExperts(file, architecture, config, json));
  } else if (architecture == "llama") {
    json.Key("mlp_bias"), json.Bool(file.Contains("blk.0.ffn_gate.bias"));
  }
  json.EndObject();
  return absl::StrCat(buffer.GetString(), "\n");
}

}  // namespace essor::model
