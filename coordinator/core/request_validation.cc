#include "coordinator/core/request_validation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/error_details.h"
#include "common/status_macros.h"

namespace essor::coordinator {
namespace {

constexpr char kContextReason[] = "CONTEXT_LENGTH_EXCEEDED";
// Logits divided by less than this would overflow float32; the limit of sampling is greedy.
constexpr double kSmallestTemperature = 1e-5;
// Still above 0 as float32, where 0 would be "off". Leaves one token, as all so small do.
constexpr double kSmallestTypicalP = 1e-30;

// NaN fails every comparison, so each check is written as "not inside".
absl::Status CheckRange(const std::optional<double>& value, const std::string& field, double low,
                        double high) {
  if (!value.has_value() || (*value >= low && *value <= high)) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("%g is not within %g and %g", *value, low, high));
}

absl::Status CheckCount(const std::optional<int64_t>& value, const std::string& field, int64_t low,
                        int64_t high) {
  if (!value.has_value() || (*value >= low && *value <= high)) return absl::OkStatus();
  return FieldError(field, absl::StrCat(*value, " is not within ", low, " and ", high));
}

absl::Status CheckStops(const SamplingRequest& sampling, const ModelLimits& limits) {
  if (sampling.stop.size() > kMaxStops) {
    return FieldError("sampling.stop", absl::StrCat(sampling.stop.size(),
                                                    " stop strings are more than ", kMaxStops));
  }
  for (const std::string& stop : sampling.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return FieldError("sampling.stop",
                        absl::StrCat("a stop string of ", stop.size(),
                                     " bytes is not within 1 and ", kMaxStopBytes));
    }
  }
  if (sampling.stop_token_ids.size() > kMaxStops) {
    return FieldError("sampling.stop_token_ids", absl::StrCat(sampling.stop_token_ids.size(),
                                                              " ids are more than ", kMaxStops));
  }
  for (const TokenId id : sampling.stop_token_ids) {
    if (id < limits.vocab_size) continue;
    return FieldError("sampling.stop_token_ids",
                      absl::StrCat("id ", id, " is outside the vocabulary of ", limits.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckName(const std::string& name, const std::string& field) {
  if (name.size() > kMaxRequestIdBytes) {
    return FieldError(field,
                      absl::StrCat(name.size(), " bytes are more than ", kMaxRequestIdBytes));
  }
  const bool printable =
      std::all_of(name.begin(), name.end(), [](char byte) { return byte > 0x20 && byte < 0x7f; });
  if (printable) return absl::OkStatus();
  return FieldError(field, "only printable ASCII characters without spaces are allowed");
}

absl::Status CheckPenalties(const SamplingRequest& sampling) {
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.repetition_penalty, "sampling.repetition_penalty",
                                   kMinRepetitionPenalty, kMaxRepetitionPenalty));
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.presence_penalty, "sampling.presence_penalty", -2, 2));
  return CheckRange(sampling.frequency_penalty, "sampling.frequency_penalty", -2, 2);
}

absl::Status CheckBiases(const SamplingRequest& sampling, const ModelLimits& limits) {
  const std::string field = "sampling.logit_bias";
  if (sampling.logit_bias.size() > kMaxLogitBiases) {
    return FieldError(
        field, absl::StrCat(sampling.logit_bias.size(), " biases are more than ", kMaxLogitBiases));
  }
  std::vector<int64_t> ids;
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (id < 0 || id >= limits.vocab_size) {
      return FieldError(
          field, absl::StrCat("id ", id, " is outside the vocabulary of ", limits.vocab_size));
    }
    ESSOR_RETURN_IF_ERROR(CheckRange(bias, field, -kMaxLogitBias, kMaxLogitBias));
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice == ids.end()) return absl::OkStatus();
  return FieldError(field, absl::StrCat("id ", *twice, " is given twice"));
}

absl::Status CheckTokenCounts(const SamplingRequest& sampling) {
  ESSOR_RETURN_IF_ERROR(CheckCount(sampling.max_new_tokens, "sampling.max_new_tokens", 1,
                                   std::numeric_limits<int64_t>::max()));
  return CheckCount(sampling.min_new_tokens, "sampling.min_new_tokens", 0,
                    sampling.max_new_tokens.value_or(std::numeric_limits<int64_t>::max()));
}

// Tokens that would end the text, which has to go on for min_new_tokens. Text may still end it.
std::vector<TokenId> LateTokens(const SamplingRequest& sampling, const ModelLimits& limits) {
  if (sampling.min_new_tokens.value_or(0) == 0) return {};
  std::vector<TokenId> tokens = sampling.stop_token_ids;
  if (!sampling.ignore_eos) {
    tokens.insert(tokens.end(), limits.eos_tokens.begin(), limits.eos_tokens.end());
  }
  return tokens;
}

SamplingSettings SettingsOf(const GenerateInput& input, const ModelLimits& limits) {
  const SamplingRequest& sampling = input.sampling;
  const double temperature = sampling.temperature.value_or(limits.default_temperature);
  SamplingSettings settings;
  settings.temperature =
      temperature < kSmallestTemperature ? 0.0f : static_cast<float>(temperature);
  settings.top_p = static_cast<float>(sampling.top_p.value_or(limits.default_top_p));
  settings.top_k = static_cast<int32_t>(sampling.top_k.value_or(limits.default_top_k));
  settings.min_p = static_cast<float>(sampling.min_p.value_or(0.0));
  settings.seed = sampling.seed.value_or(input.drawn_seed);
  settings.typical_p =
      static_cast<float>(std::max(sampling.typical_p.value_or(1.0), kSmallestTypicalP));
  settings.repetition_penalty = static_cast<float>(sampling.repetition_penalty.value_or(1.0));
  settings.presence_penalty = static_cast<float>(sampling.presence_penalty.value_or(0.0));
  settings.frequency_penalty = static_cast<float>(sampling.frequency_penalty.value_or(0.0));
  for (const auto& [id, bias] : sampling.logit_bias) {
    settings.logit_bias.emplace_back(static_cast<TokenId>(id), static_cast<float>(bias));
  }
  settings.late_tokens = LateTokens(sampling, limits);
  settings.min_new_tokens = static_cast<uint32_t>(sampling.min_new_tokens.value_or(0));
  if (input.output.logprobs.has_value()) {
    settings.logprobs = static_cast<uint32_t>(*input.output.logprobs);
  }
  return settings;
}

}  // namespace

absl::Status ValidateRequestId(const std::string& request_id) {
  return CheckName(request_id, "request_id");
}

absl::Status ValidateSampling(const SamplingRequest& sampling, const ModelLimits& limits) {
  constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.temperature, "sampling.temperature", 0, 2));
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.top_p, "sampling.top_p", 0, 1));
  if (sampling.top_p.has_value() && *sampling.top_p == 0) {
    return FieldError("sampling.top_p", "must be greater than 0");
  }
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.min_p, "sampling.min_p", 0, 1));
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.typical_p, "sampling.typical_p", 0, 1));
  if (sampling.typical_p.has_value() && *sampling.typical_p == 0) {
    return FieldError("sampling.typical_p", "must be greater than 0");
  }
  ESSOR_RETURN_IF_ERROR(CheckCount(sampling.top_k, "sampling.top_k", 0, kMaxInt32));
  ESSOR_RETURN_IF_ERROR(CheckCount(sampling.n, "sampling.n", 1, kMaxContinuations));
  ESSOR_RETURN_IF_ERROR(CheckTokenCounts(sampling));
  ESSOR_RETURN_IF_ERROR(CheckPenalties(sampling));
  ESSOR_RETURN_IF_ERROR(CheckBiases(sampling, limits));
  return CheckStops(sampling, limits);
}

absl::Status ValidateOutput(const OutputRequest& output, const SamplingRequest& sampling) {
  ESSOR_RETURN_IF_ERROR(CheckCount(output.logprobs, "logprobs", 0, kMaxLogprobs));
  ESSOR_RETURN_IF_ERROR(CheckCount(output.prompt_logprobs, "prompt_logprobs", 0, kMaxLogprobs));
  return CheckCount(output.best_of, "best_of", sampling.n.value_or(1), kMaxContinuations);
}

absl::StatusOr<Service> MakeService(ServiceRequest service) {
  ESSOR_RETURN_IF_ERROR(CheckCount(service.priority, "priority", -kMaxPriority, kMaxPriority));
  ESSOR_RETURN_IF_ERROR(CheckName(service.tenant, "tenant"));
  ESSOR_RETURN_IF_ERROR(CheckName(service.cache_salt, "cache_salt"));
  return Service{.priority = static_cast<int32_t>(service.priority),
                 .tenant = std::move(service.tenant),
                 .cache_salt = std::move(service.cache_salt)};
}

absl::Status ValidateTokens(const std::vector<TokenId>& tokens, const std::string& field,
                            uint32_t max_tokens, const ModelLimits& limits) {
  if (tokens.empty()) return FieldError(field, "is empty: at least one token is needed");
  if (tokens.size() > max_tokens) {
    return WithReason(
        FieldError(field, absl::StrCat(tokens.size(), " tokens do not fit: this request may have ",
                                       max_tokens, " of the model's context of ",
                                       limits.max_context_tokens, " tokens")),
        kContextReason);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < limits.vocab_size) continue;
    return FieldError(field, absl::StrCat("id ", tokens[i], " at position ", i,
                                          " is outside the vocabulary of ", limits.vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerateTask> MakeGenerateTask(GenerateInput input, const ModelLimits& limits) {
  const SamplingRequest& sampling = input.sampling;
  ESSOR_RETURN_IF_ERROR(ValidateSampling(sampling, limits));
  ESSOR_RETURN_IF_ERROR(ValidateOutput(input.output, sampling));
  ESSOR_ASSIGN_OR_RETURN(Service service, MakeService(std::move(input.service)));
  // One position must be left for a new token.
  ESSOR_RETURN_IF_ERROR(
      ValidateTokens(input.prompt, input.prompt_field, limits.max_context_tokens - 1, limits));
  const int64_t room = limits.max_context_tokens - static_cast<int64_t>(input.prompt.size());
  const int64_t max_new_tokens = sampling.max_new_tokens.value_or(room);
  if (max_new_tokens > room) {
    return WithReason(FieldError("sampling.max_new_tokens",
                                 absl::StrCat(max_new_tokens, " new tokens after a prompt of ",
                                              input.prompt.size(), " exceed the context of ",
                                              limits.max_context_tokens, " tokens")),
                      kContextReason);
  }
  // Checked against the default of max_new_tokens, too.
  ESSOR_RETURN_IF_ERROR(
      CheckCount(sampling.min_new_tokens, "sampling.min_new_tokens", 0, max_new_tokens));
  GenerateTask task;
  task.sampling = SettingsOf(input, limits);
  task.prompt = std::make_shared<const std::vector<TokenId>>(std::move(input.prompt));
  task.num_continuations = static_cast<uint32_t>(sampling.n.value_or(1));
  task.max_new_tokens = static_cast<uint32_t>(max_new_tokens);
  task.ignore_eos = sampling.ignore_eos;
  task.stop = sampling.stop;
  task.stop_token_ids = sampling.stop_token_ids;
  const auto best_of = static_cast<uint32_t>(input.output.best_of.value_or(0));
  if (best_of > task.num_continuations) task.best_of = best_of;
  task.echo = input.output.echo;
  if (input.output.prompt_logprobs.has_value()) {
    task.prompt_logprobs = static_cast<uint32_t>(*input.output.prompt_logprobs);
  }
  task.service = std::move(service);
  task.deadline = input.deadline;
  return task;
}

absl::StatusOr<ScoreTask> MakeScoreTask(ScoreInput input, const ModelLimits& limits) {
  if (input.sequences.empty()) return FieldError("sequences", "at least one is needed");
  if (input.sequences.size() > kMaxScoreSequences) {
    return FieldError("sequences", absl::StrCat(input.sequences.size(), " sequences are more than ",
                                                kMaxScoreSequences));
  }
  for (size_t i = 0; i < input.sequences.size(); ++i) {
    ESSOR_RETURN_IF_ERROR(ValidateTokens(input.sequences[i], absl::StrCat("sequences[", i, "].ids"),
                                         limits.max_context_tokens, limits));
  }
  ESSOR_RETURN_IF_ERROR(CheckCount(input.top_n, "top_n", 0, kMaxLogprobs));
  ESSOR_ASSIGN_OR_RETURN(Service service, MakeService(std::move(input.service)));
  return ScoreTask{.sequences = std::move(input.sequences),
                   .return_logits = input.return_logits,
                   .top_n = static_cast<uint32_t>(input.top_n),
                   .service = std::move(service),
                   .deadline = input.deadline};
}

}  // namespace essor::coordinator
