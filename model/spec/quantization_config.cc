#include "model/spec/quantization_config.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"

namespace essor::model {

absl::StatusOr<bool> IsFp8Checkpoint(const ConfigView& config) {
  if (!config.Has("quantization_config")) return false;
  ESSOR_ASSIGN_OR_RETURN(const ConfigView quantization, config.Object("quantization_config"));
  ESSOR_ASSIGN_OR_RETURN(const std::string method,
                         quantization.StringOr("quant_method", "unnamed"));
  if (method != "fp8") {
    return quantization.Error("quant_method",
                              absl::StrCat("\"", method, "\" checkpoints are not supported"));
  }
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
  return true;
}

}  // namespace essor::model
