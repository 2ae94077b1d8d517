#include "model/spec/rope_config.h"

#include <cmath>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

using Scaling = decltype(RopeSpec::scaling);

// The object that holds the type and its parameters, if there is one.
absl::StatusOr<std::optional<ConfigView>> FindParameters(const ConfigView& config) {
  if (!config.Has("rope_parameters")) {
    if (!config.Has("rope_scaling")) return std::nullopt;
    ESSOR_ASSIGN_OR_RETURN(ConfigView scaling, config.Object("rope_scaling"));
    return scaling;
  }
  ESSOR_ASSIGN_OR_RETURN(ConfigView parameters, config.Object("rope_parameters"));
  // transformers 5 nests one set per layer type where types differ in their rotary embedding.
  for (const std::string& key : parameters.Keys()) {
    if (key != "full_attention" && parameters.IsObject(key)) {
      return parameters.Error(key, "RoPE that differs by layer is not supported");
    }
  }
  if (!parameters.IsObject("full_attention")) return parameters;
  ESSOR_ASSIGN_OR_RETURN(ConfigView full, parameters.Object("full_attention"));
  return full;
}

absl::StatusOr<double> Factor(const ConfigView& parameters) {
  ESSOR_ASSIGN_OR_RETURN(const double factor, parameters.Number("factor"));
  if (!(factor >= 1)) return parameters.Error("factor", absl::StrCat(factor, " is below 1"));
  return factor;
}

absl::StatusOr<Scaling> ReadLlama3(const ConfigView& parameters, double original_max_position) {
  RopeSpec::Llama3Scaling scaling{.original_max_position = original_max_position};
  ESSOR_ASSIGN_OR_RETURN(scaling.factor, Factor(parameters));
  ESSOR_ASSIGN_OR_RETURN(scaling.low_freq_factor, parameters.Number("low_freq_factor"));
  ESSOR_ASSIGN_OR_RETURN(scaling.high_freq_factor, parameters.Number("high_freq_factor"));
  if (!(scaling.low_freq_factor > 0)) return parameters.Error("low_freq_factor", "not above 0");
  // Equal factors leave no range to interpolate over (Llama 4 Scout); fewer is a contradiction.
  if (scaling.high_freq_factor < scaling.low_freq_factor) {
    return parameters.Error("high_freq_factor", "below low_freq_factor");
  }
  return Scaling(scaling);
}

// Magnitude that YaRN gives cos and sin for a context stretched by `factor` (arXiv 2309.00071,
// section 3.4, with the multiplier `mscale` that DeepSeek added).
double YarnMagnitude(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

absl::StatusOr<Scaling> ReadYarn(const ConfigView& parameters, double original_max_position) {
  RopeSpec::YarnScaling scaling{.original_max_position = original_max_position};
  ESSOR_ASSIGN_OR_RETURN(scaling.factor, Factor(parameters));
  ESSOR_ASSIGN_OR_RETURN(scaling.beta_fast, parameters.PositiveOr("beta_fast", 32));
  ESSOR_ASSIGN_OR_RETURN(scaling.beta_slow, parameters.PositiveOr("beta_slow", 1));
  ESSOR_ASSIGN_OR_RETURN(scaling.truncate, parameters.BoolOr("truncate", true));
  if (scaling.beta_fast < scaling.beta_slow) {
    return parameters.Error("beta_fast", "below beta_slow");
  }
  ESSOR_ASSIGN_OR_RETURN(const double mscale, parameters.NumberOr("mscale", 0));
  ESSOR_ASSIGN_OR_RETURN(const double mscale_all_dim, parameters.NumberOr("mscale_all_dim", 0));
  const double magnitude =
      mscale != 0 && mscale_all_dim != 0
          ? YarnMagnitude(scaling.factor, mscale) / YarnMagnitude(scaling.factor, mscale_all_dim)
          : YarnMagnitude(scaling.factor, 1);
  if (mscale_all_dim != 0) scaling.score_magnitude = YarnMagnitude(scaling.factor, mscale_all_dim);
  ESSOR_ASSIGN_OR_RETURN(scaling.attention_factor,
                         parameters.PositiveOr("attention_factor", magnitude));
  return Scaling(scaling);
}

// The context a model was trained on before stretching: a key of the config itself wins over one
// beside the scaling, and without either nothing was stretched.
absl::StatusOr<double> OriginalMaxPosition(const ConfigView& config, const ConfigView& parameters,
                                           const RopeContext& context) {
  const std::string key = "original_max_position_embeddings";
  const ConfigView& holder = config.Has(key) ? config : parameters;
  ESSOR_ASSIGN_OR_RETURN(const double original,
                         holder.NumberOr(key, context.max_position_embeddings));
  if (!(original >= 1)) return holder.Error(key, absl::StrCat(original, " is below 1"));
  return original;
}

absl::StatusOr<Scaling> ReadScaling(const ConfigView& config, const ConfigView& parameters,
                                    const RopeContext& context) {
  const std::string type_key = parameters.Has("rope_type") ? "rope_type" : "type";
  ESSOR_ASSIGN_OR_RETURN(const std::string type, parameters.StringOr(type_key, "default"));
  if (type == "default") return Scaling();
  if (type == "linear") {
    ESSOR_ASSIGN_OR_RETURN(const double factor, Factor(parameters));
    return Scaling(RopeSpec::LinearScaling{factor});
  }
  if (type != "llama3" && type != "yarn") {
    return parameters.Error(
        type_key,
        absl::StrCat("RoPE type \"", type, "\" is not one of default, linear, llama3, yarn"));
  }
  ESSOR_ASSIGN_OR_RETURN(const double original, OriginalMaxPosition(config, parameters, context));
  return type == "llama3" ? ReadLlama3(parameters, original) : ReadYarn(parameters, original);
}

}  // namespace

absl::StatusOr<RopeSpec> ReadRope(const ConfigView& config, const RopeContext& context) {
  RopeSpec rope;
  ESSOR_ASSIGN_OR_RETURN(rope.theta, config.PositiveOr("rope_theta", context.default_theta));
  ESSOR_ASSIGN_OR_RETURN(double partial,
                         config.PositiveOr("partial_rotary_factor", context.default_partial));
  ESSOR_ASSIGN_OR_RETURN(const auto parameters, FindParameters(config));
  if (parameters.has_value()) {
    ESSOR_ASSIGN_OR_RETURN(rope.theta, parameters->PositiveOr("rope_theta", rope.theta));
    ESSOR_ASSIGN_OR_RETURN(partial, parameters->PositiveOr("partial_rotary_factor", partial));
    ESSOR_ASSIGN_OR_RETURN(rope.scaling, ReadScaling(config, *parameters, context));
  }
  if (!(rope.theta > 1)) {
    return config.Error("rope_theta", absl::StrCat(rope.theta, " is not above 1"));
  }
  if (partial > 1) {
    return config.Error("partial_rotary_factor", absl::StrCat(partial, " is above 1"));
  }
  rope.rotary_dim = static_cast<uint32_t>(context.head_dim * partial);
  if (rope.rotary_dim == 0 || rope.rotary_dim % 2 != 0) {
    return config.Error("head_dim", absl::StrCat(rope.rotary_dim, " rotated dimensions of ",
                                                 context.head_dim, ": must be even and above 0"));
  }
  return rope;
}

}  // namespace essor::model
