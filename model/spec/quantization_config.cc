#include "model/spec/quantization_config.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

absl::Status CheckFp8(const ConfigView& quantization) {
  ESSOR_ASSIGN_OR_RETURN(const std::string format, quantization.StringOr("fmt", "e4m3"));
  if (format != "e4m3" && format != "float8_e4m3fn") {  // MiniMax-M2 writes the latter
    return quantization.Error("fmt", absl::StrCat("\"", format, "\" is not e4m3"));
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string scheme,
                         quantization.StringOr("activation_scheme", "dynamic"));
  if (scheme != "dynamic") {
    return quantization.Error("activation_scheme", absl::StrCat("\"", scheme, "\" is not dynamic"));
  }
  ESSOR_ASSIGN_OR_RETURN(const std::vector<int64_t> block,
                         quantization.Integers("weight_block_size"));
  if (block != std::vector<int64_t>{128, 128}) {
    return quantization.Error("weight_block_size",
                              absl::StrCat("[", absl::StrJoin(block, ", "), "] is not [128, 128]"));
  }
  return absl::OkStatus();
}

absl::Status CheckWord(const ConfigView& config, const std::string& key,
                       const std::string& wanted) {
  ESSOR_ASSIGN_OR_RETURN(const std::string word, config.String(key));
  if (word == wanted) return absl::OkStatus();
  return config.Error(key, absl::StrCat("\"", word, "\" is not ", wanted));
}

absl::Status CheckNumber(const ConfigView& config, const std::string& key, double wanted) {
  ESSOR_ASSIGN_OR_RETURN(const double number, config.Number(key));
  if (number == wanted) return absl::OkStatus();
  return config.Error(key, absl::StrCat(number, " is not ", wanted));
}

// QuantizationArgs of the compressed-tensors library.
absl::Status CheckPackedWeights(const ConfigView& weights) {
  ESSOR_RETURN_IF_ERROR(CheckWord(weights, "type", "int"));
  ESSOR_RETURN_IF_ERROR(CheckNumber(weights, "num_bits", 4));
  ESSOR_RETURN_IF_ERROR(CheckNumber(weights, "group_size", 32));
  ESSOR_ASSIGN_OR_RETURN(const bool symmetric, weights.BoolOr("symmetric", true));
  if (!symmetric) return weights.Error("symmetric", "weights with zero points are not supported");
  if (weights.Has("actorder")) {
    return weights.Error("actorder", "reordered columns are not supported");
  }
  return absl::OkStatus();
}

absl::Status CheckCompressedTensors(const ConfigView& quantization) {
  ESSOR_RETURN_IF_ERROR(CheckWord(quantization, "format", "pack-quantized"));
  ESSOR_ASSIGN_OR_RETURN(const ConfigView groups, quantization.Object("config_groups"));
  const std::vector<std::string> names = groups.Keys();
  if (names.empty()) return quantization.Error("config_groups", "holds no group");
  if (names.size() > 1) {
    return groups.Error(names[1], "several kinds of quantised layers are not supported");
  }
  ESSOR_ASSIGN_OR_RETURN(const ConfigView group, groups.Object(names[0]));
  for (const char* key : {"input_activations", "output_activations"}) {
    if (group.Has(key)) return group.Error(key, "quantised activations are not supported");
  }
  ESSOR_ASSIGN_OR_RETURN(const ConfigView weights, group.Object("weights"));
  return CheckPackedWeights(weights);
}

}  // namespace

absl::StatusOr<std::optional<DType>> QuantisedType(const ConfigView& config) {
  if (!config.Has("quantization_config")) return std::nullopt;
  ESSOR_ASSIGN_OR_RETURN(const ConfigView quantization, config.Object("quantization_config"));
  ESSOR_ASSIGN_OR_RETURN(const std::string method,
                         quantization.StringOr("quant_method", "unnamed"));
  if (method == "fp8") {
    ESSOR_RETURN_IF_ERROR(CheckFp8(quantization));
    return DType::kF8E4M3;
  }
  if (method == "mxfp4") return DType::kF4E2M1;
  if (method == "compressed-tensors") {
    ESSOR_RETURN_IF_ERROR(CheckCompressedTensors(quantization));
    return DType::kOffsetI4;
  }
  return quantization.Error("quant_method",
                            absl::StrCat("\"", method, "\" checkpoints are not supported"));
}

}  // namespace essor::model
