#include "client/cli/sampling_flags.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "simdjson.h"

namespace essor::cli {
namespace {

// Written so that NaN fails.
absl::Status CheckRange(const char* flag, const std::optional<double>& value, double low,
                        double high) {
  if (!value.has_value() || (*value >= low && *value <= high)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s %g is not from %g to %g", flag, *value, low, high));
}

absl::StatusOr<std::pair<uint32_t, float>> ParseBias(const std::string& text) {
  const size_t equals = text.find('=');
  std::pair<uint32_t, float> bias;
  if (equals == std::string::npos || !absl::SimpleAtoi(text.substr(0, equals), &bias.first) ||
      !absl::SimpleAtof(text.substr(equals + 1), &bias.second)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--logit-bias %s is not a token id, '=' and a number", text));
  }
  ESSOR_RETURN_IF_ERROR(CheckRange("--logit-bias", bias.second, -100, 100));
  return bias;
}

void AddPenaltyFlags(CLI::App& app, SamplingFlags& flags) {
  app.add_option("--repetition-penalty", flags.repetition_penalty,
                 "0.01 to 10; above 1 makes tokens of prompt and answer less likely")
      ->default_str("1");
  app.add_option("--presence-penalty", flags.presence_penalty,
                 "-2 to 2; taken from the logits of the answer's tokens")
      ->default_str("0");
  app.add_option("--frequency-penalty", flags.frequency_penalty,
                 "-2 to 2; likewise, for each time a token is in the answer")
      ->default_str("0");
  app.add_option("--logit-bias", flags.logit_bias,
                 "ID=BIAS adds -100 to 100 to a token's logit; may be given several times")
      ->allow_extra_args(false);
}

absl::Status CheckPenaltyFlags(const SamplingFlags& flags) {
  ESSOR_RETURN_IF_ERROR(CheckRange("--repetition-penalty", flags.repetition_penalty, 0.01, 10));
  ESSOR_RETURN_IF_ERROR(CheckRange("--presence-penalty", flags.presence_penalty, -2, 2));
  ESSOR_RETURN_IF_ERROR(CheckRange("--frequency-penalty", flags.frequency_penalty, -2, 2));
  for (const std::string& bias : flags.logit_bias) {
    ESSOR_RETURN_IF_ERROR(ParseBias(bias).status());
  }
  return absl::OkStatus();
}

}  // namespace

void AddSamplingFlags(CLI::App& app, SamplingFlags& flags, const std::string& default_temperature) {
  app.add_option("--max-new-tokens", flags.max_new_tokens, "Most tokens to generate")
      ->default_str("what the context leaves");
  app.add_option("--temperature", flags.temperature, "0 to 2; 0 is greedy")
      ->default_str(default_temperature);
  app.add_option("--top-p", flags.top_p,
                 "Sample among the likeliest tokens of this total probability")
      ->default_str("1 or the model's own");
  app.add_option("--top-k", flags.top_k, "Sample among this many likeliest tokens; 0 is all")
      ->default_str("0 or the model's own");
  app.add_option("--min-p", flags.min_p,
                 "Leave out tokens below this share of the likeliest one's probability")
      ->default_str("0");
  app.add_option("--typical-p", flags.typical_p,
                 "Sample among the tokens of typical surprise of this total probability")
      ->default_str("1");
  AddPenaltyFlags(app, flags);
  app.add_option("--min-new-tokens", flags.min_new_tokens, "Least tokens before the answer may end")
      ->default_str("0");
  app.add_option("--seed", flags.seed, "Seed of the sampling")->default_str("drawn by the server");
  app.add_flag("--ignore-eos", flags.ignore_eos, "Go on after the end-of-sequence token");
  app.add_option("--stop", flags.stop, "Text that ends the answer; may be given several times")
      ->allow_extra_args(false);
}

absl::Status CheckSamplingFlags(const SamplingFlags& flags) {
  ESSOR_RETURN_IF_ERROR(CheckRange("--temperature", flags.temperature, 0, 2));
  ESSOR_RETURN_IF_ERROR(CheckRange("--top-p", flags.top_p, 0, 1));
  if (flags.top_p.has_value() && *flags.top_p == 0) {
    return absl::InvalidArgumentError("--top-p 0 is not above 0");
  }
  ESSOR_RETURN_IF_ERROR(CheckRange("--min-p", flags.min_p, 0, 1));
  ESSOR_RETURN_IF_ERROR(CheckRange("--typical-p", flags.typical_p, 0, 1));
  if (flags.typical_p.has_value() && *flags.typical_p == 0) {
    return absl::InvalidArgumentError("--typical-p 0 is not above 0");
  }
  ESSOR_RETURN_IF_ERROR(CheckPenaltyFlags(flags));
  if (flags.top_k.has_value() && *flags.top_k < 0) {
    return absl::InvalidArgumentError(absl::StrFormat("--top-k %d is negative", *flags.top_k));
  }
  if (flags.max_new_tokens.has_value() && *flags.max_new_tokens == 0) {
    return absl::InvalidArgumentError("--max-new-tokens 0 is not at least 1");
  }
  if (flags.max_new_tokens.has_value() &&
      flags.min_new_tokens.value_or(0) > *flags.max_new_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--min-new-tokens %d is more than %d", *flags.min_new_tokens, *flags.max_new_tokens));
  }
  for (const std::string& stop : flags.stop) ESSOR_RETURN_IF_ERROR(CheckUtf8("--stop", stop));
  return absl::OkStatus();
}

v1::SamplingParams ToSamplingParams(const SamplingFlags& flags) {
  v1::SamplingParams params;
  if (flags.temperature) params.set_temperature(static_cast<float>(*flags.temperature));
  if (flags.top_p) params.set_top_p(static_cast<float>(*flags.top_p));
  if (flags.top_k) params.set_top_k(*flags.top_k);
  if (flags.min_p) params.set_min_p(static_cast<float>(*flags.min_p));
  if (flags.seed) params.set_seed(*flags.seed);
  if (flags.max_new_tokens) params.set_max_new_tokens(*flags.max_new_tokens);
  if (flags.min_new_tokens) params.set_min_new_tokens(*flags.min_new_tokens);
  if (flags.typical_p) params.set_typical_p(static_cast<float>(*flags.typical_p));
  if (flags.repetition_penalty) {
    params.set_repetition_penalty(static_cast<float>(*flags.repetition_penalty));
  }
  if (flags.presence_penalty) {
    params.set_presence_penalty(static_cast<float>(*flags.presence_penalty));
  }
  if (flags.frequency_penalty) {
    params.set_frequency_penalty(static_cast<float>(*flags.frequency_penalty));
  }
  for (const std::string& text : flags.logit_bias) {
    const auto bias = ParseBias(text);  // CheckSamplingFlags() has refused others
    if (bias.ok()) (*params.mutable_logit_bias())[bias->first] = bias->second;
  }
  params.set_ignore_eos(flags.ignore_eos);
  for (const std::string& stop : flags.stop) params.add_stop(stop);
  return params;
}

absl::Status CheckUtf8(const std::string& flag, const std::string& text) {
  if (simdjson::validate_utf8(text)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s is not UTF-8", flag));
}

}  // namespace essor::cli
