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

}  // namespace

absl::Status ValidateRequestId(const std::string& request_id) {
  if (request_id.size() > kMaxRequestIdBytes) {
    return FieldError("request_id",
                      absl::StrCat(request_id.size(), " bytes are more than ", kMaxRequestIdBytes));
  }
  const bool printable = std::all_of(request_id.begin(), request_id.end(),
                                     [](char byte) { return byte > 0x20 && byte < 0x7f; });
  if (printable) return absl::OkStatus();
  return FieldError("request_id", "only printable ASCII characters without spaces are allowed");
}

absl::Status ValidateSampling(const SamplingRequest& sampling, const ModelLimits& limits) {
  constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.temperature, "sampling.temperature", 0, 2));
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.top_p, "sampling.top_p", 0, 1));
  if (sampling.top_p.has_value() && *sampling.top_p == 0) {
    return FieldError("sampling.top_p", "must be greater than 0");
  }
  ESSOR_RETURN_IF_ERROR(CheckRange(sampling.min_p, "sampling.min_p", 0, 1));
  ESSOR_RETURN_IF_ERROR(CheckCount(sampling.top_k, "sampling.top_k", 0, kMaxInt32));
  ESSOR_RETURN_IF_ERROR(CheckCount(sampling.n, "sampling.n", 1, kMaxContinuations));
  ESSOR_RETURN_IF_ERROR(CheckCount(sampling.max_new_tokens, "sampling.max_new_tokens", 1,
                                   std::numeric_limits<int64_t>::max()));
  return CheckStops(sampling, limits);
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
  const double temperature = sampling.temperature.value_or(limits.default_temperature);
  GenerateTask task;
  task.sampling.temperature =
      temperature < kSmallestTemperature ? 0.0f : static_cast<float>(temperature);
  task.sampling.top_p = static_cast<float>(sampling.top_p.value_or(limits.default_top_p));
  task.sampling.top_k = static_cast<int32_t>(sampling.top_k.value_or(limits.default_top_k));
  task.sampling.min_p = static_cast<float>(sampling.min_p.value_or(0.0));
  task.sampling.seed = sampling.seed.value_or(input.drawn_seed);
  task.prompt = std::make_shared<const std::vector<TokenId>>(std::move(input.prompt));
  task.num_continuations = static_cast<uint32_t>(sampling.n.value_or(1));
  task.max_new_tokens = static_cast<uint32_t>(max_new_tokens);
  task.ignore_eos = sampling.ignore_eos;
  task.stop = sampling.stop;
  task.stop_token_ids = sampling.stop_token_ids;
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
  return ScoreTask{.sequences = std::move(input.sequences),
                   .return_logits = input.return_logits,
                   .deadline = input.deadline};
}

}  // namespace essor::coordinator
