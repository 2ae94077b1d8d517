#include "model/checkpoint/gguf_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_metadata.h"

namespace essor::model {
namespace {

// Llama 3.1's rule (rope_type "llama3"). The format keeps only the divisor that each frequency gets
// (rope_freqs.weight); `essor convert` adds the rule's other parameters as keys, elsewhere they are
// those of every released model (Llama 4's high factor is its own).
struct Llama3Rope {
  double factor = 1.0;
  double low_factor = 1.0;
  double high_factor = 4.0;
  uint64_t original_context = 8192;
};

absl::Status BadFactors(const GgufKeys& keys, const std::string& problem) {
  return absl::InvalidArgumentError(
      absl::StrCat(keys.file().path(), ": tensor ", kGgufRopeFactors, ": ", problem));
}

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
absl::StatusOr<Llama3Rope> RecogniseLlama3(GgufKeys& keys, const GgufRope& rope) {
  Llama3Rope rule;
  if (keys.architecture() == "llama4") rule.high_factor = 1.0;
  ESSOR_ASSIGN_OR_RETURN(rule.low_factor,
                         keys.Positive("rope.scaling.low_freq_factor", rule.low_factor));
  ESSOR_ASSIGN_OR_RETURN(rule.high_factor,
                         keys.Positive("rope.scaling.high_freq_factor", rule.high_factor));
  ESSOR_ASSIGN_OR_RETURN(rule.original_context,
                         keys.Uint("rope.scaling.original_context_length", rule.original_context));
  ESSOR_ASSIGN_OR_RETURN(const TensorView tensor, keys.file().Find(kGgufRopeFactors));
  const uint64_t pairs = rope.rotary_dim / 2;
  if (tensor.shape != std::vector<uint64_t>{pairs}) {
    return BadFactors(keys, absl::StrCat("its shape must be [", pairs, "]"));
  }
  std::vector<float> divisors(pairs);
  ESSOR_RETURN_IF_ERROR(DecodeToFloat(tensor, 0, std::span(divisors)));
  for (const float divisor : divisors) {
    if (std::isfinite(divisor)) rule.factor = std::max(rule.factor, ShortestFloat(divisor));
  }
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(rope.rotary_dim);
    const double expected = Llama3Divisor(rule, std::pow(rope.theta, -exponent));
    // The file's divisors went through float32 several times.
    if (!(std::abs(divisors[i] - expected) <= 1e-3 * expected)) {
      return BadFactors(keys, "its factors do not follow Llama 3.1's rule");
    }
  }
  return rule;
}

absl::Status WriteYarn(GgufKeys& keys, GgufJson& json) {
  ESSOR_ASSIGN_OR_RETURN(const uint64_t original,
                         keys.Uint("rope.scaling.original_context_length"));
  ESSOR_ASSIGN_OR_RETURN(const double fast, keys.Positive("rope.scaling.yarn_beta_fast", 32.0));
  ESSOR_ASSIGN_OR_RETURN(const double slow, keys.Positive("rope.scaling.yarn_beta_slow", 1.0));
  json.Uint("original_max_position_embeddings", original);
  json.Real("beta_fast", fast);
  json.Real("beta_slow", slow);
  const std::string key = "rope.scaling.yarn_log_multiplier";
  if (!keys.Has(key)) return absl::OkStatus();
  // What other architectures mean by this key has no reader here.
  const bool sparse = keys.architecture() == "deepseek32";
  if (!sparse && keys.architecture() != "deepseek2") return keys.Bad(key, " is not understood");
  // A tenth of mscale_all_dim. The file does not keep mscale: with deepseek2 it is the same, with
  // deepseek32 it is 1 (llama.cpp, src/llama-context.cpp).
  ESSOR_ASSIGN_OR_RETURN(const double multiplier, keys.Positive(key));
  if (multiplier > 1e6) return keys.Bad(key, absl::StrCat(" is ", multiplier));
  const double mscale = ShortestFloat(10.0 * multiplier);
  json.Real("mscale", sparse ? 1.0 : mscale);
  json.Real("mscale_all_dim", mscale);
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteRopeScaling(GgufKeys& keys, const GgufRope& rope, GgufJson& json) {
  ESSOR_RETURN_IF_ERROR(keys.Bool("rope.scaling.finetuned", false).status());
  if (keys.file().Contains(kGgufRopeFactors)) {
    ESSOR_ASSIGN_OR_RETURN(const Llama3Rope rule, RecogniseLlama3(keys, rope));
    json.StartObject("rope_scaling");
    json.Text("rope_type", "llama3");
    json.Real("factor", rule.factor);
    json.Real("low_freq_factor", rule.low_factor);
    json.Real("high_freq_factor", rule.high_factor);
    json.Uint("original_max_position_embeddings", rule.original_context);
    json.EndObject();
    return absl::OkStatus();
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string type, keys.String("rope.scaling.type", "none"));
  if (type == "none") {
    json.Null("rope_scaling");
    return absl::OkStatus();
  }
  if (type != "linear" && type != "yarn") {
    return keys.Bad("rope.scaling.type", absl::StrCat(": unknown scaling ", type));
  }
  ESSOR_ASSIGN_OR_RETURN(const double factor, keys.Positive("rope.scaling.factor"));
  json.StartObject("rope_scaling");
  json.Text("rope_type", type);
  json.Real("factor", factor);
  if (type == "yarn") ESSOR_RETURN_IF_ERROR(WriteYarn(keys, json));
  json.EndObject();
  return absl::OkStatus();
}

}  // namespace essor::model
