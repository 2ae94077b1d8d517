#include "client/convert/config_edit.h"

#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "rapidjson/document.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"

namespace essor::client {
namespace {

constexpr uint32_t kExpertsMax = 1024;

absl::StatusOr<rapidjson::Document> ParseObject(const std::string& config) {
  rapidjson::Document document;
  document.Parse<rapidjson::kParseIterativeFlag>(config.data(), config.size());
  if (document.HasParseError() || !document.IsObject()) {
    return absl::InvalidArgumentError("config.json: is not a JSON object");
  }
  return document;
}

std::string Text(const rapidjson::Document& document) {
  rapidjson::StringBuffer buffer;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> writer(buffer);
  writer.SetIndent(' ', 2);
  document.Accept(writer);
  return absl::StrCat(buffer.GetString(), "\n");
}

// Replaces the value, in place where the key exists.
void Set(rapidjson::Document& document, const char* key, rapidjson::Value value) {
  if (document.HasMember(key)) {
    document[key] = value;
    return;
  }
  auto& allocator = document.GetAllocator();
  document.AddMember(rapidjson::Value(key, allocator), value, allocator);
}

rapidjson::Value StringValue(rapidjson::Document& document, const char* text) {
  return rapidjson::Value(text, document.GetAllocator());
}

std::string StringOf(const rapidjson::Document& document, const char* key) {
  if (!document.HasMember(key) || !document[key].IsString()) return "";
  const rapidjson::Value& value = document[key];
  return std::string(value.GetString(), value.GetStringLength());
}

void SetFamily(rapidjson::Document& document, const char* model_type, const char* class_name) {
  Set(document, "model_type", StringValue(document, model_type));
  rapidjson::Value classes(rapidjson::kArrayType);
  classes.PushBack(StringValue(document, class_name), document.GetAllocator());
  Set(document, "architectures", std::move(classes));
}

void MakeQwen3Moe(rapidjson::Document& document, uint32_t num_experts) {
  SetFamily(document, "qwen3_moe", "Qwen3MoeForCausalLM");
  Set(document, "num_experts", rapidjson::Value(num_experts));
  rapidjson::Value width;
  width.CopyFrom(document["intermediate_size"], document.GetAllocator());
  Set(document, "moe_intermediate_size", std::move(width));
  Set(document, "norm_topk_prob", rapidjson::Value(true));
  Set(document, "decoder_sparse_step", rapidjson::Value(1));
  Set(document, "mlp_only_layers", rapidjson::Value(rapidjson::kArrayType));
}

void MakeMixtral(rapidjson::Document& document, uint32_t num_experts) {
  SetFamily(document, "mixtral", "MixtralForCausalLM");
  Set(document, "num_local_experts", rapidjson::Value(num_experts));
  Set(document, "sliding_window", rapidjson::Value());
  document.EraseMember("mlp_bias");
  document.EraseMember("pretraining_tp");
}

}  // namespace

absl::StatusOr<std::string> SetConfigType(const std::string& config, ConvertType type) {
  ESSOR_ASSIGN_OR_RETURN(rapidjson::Document document, ParseObject(config));
  const char* const key = document.HasMember("dtype") ? "dtype" : "torch_dtype";
  const char* const name = type == ConvertType::kF32 ? "float32" : "bfloat16";
  Set(document, key, StringValue(document, name));
  return Text(document);
}

absl::StatusOr<std::string> UpcycleConfig(const std::string& config, const Upcycle& upcycle) {
  ESSOR_ASSIGN_OR_RETURN(rapidjson::Document document, ParseObject(config));
  if (upcycle.num_experts == 0 || upcycle.num_experts > kExpertsMax) {
    return absl::InvalidArgumentError(absl::StrCat("cannot upcycle to ", upcycle.num_experts,
                                                   " experts: 1 to ", kExpertsMax,
                                                   " are possible"));
  }
  if (upcycle.top_k == 0 || upcycle.top_k > upcycle.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("cannot upcycle: ", upcycle.top_k, " of ",
                                                   upcycle.num_experts,
                                                   " experts cannot be chosen"));
  }
  const std::string family = StringOf(document, "model_type");
  if (family == "llama") {
    MakeMixtral(document, upcycle.num_experts);
  } else if (family == "qwen3" && document.HasMember("intermediate_size")) {
    MakeQwen3Moe(document, upcycle.num_experts);
  } else if (family == "mixtral" || family == "qwen3_moe") {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot upcycle: ", family, " is a Mixture of Experts already"));
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot upcycle the family ", family, " (possible: llama, qwen3)"));
  }
  Set(document, "num_experts_per_tok", rapidjson::Value(upcycle.top_k));
  return Text(document);
}

}  // namespace essor::client
