// What callers may ask for: the one place that checks generation and scoring parameters, whichever
// front end they came through. Pure functions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/core/request.h"

namespace essor::coordinator {

// Limits on what one request may carry (also in types.proto and docs).
inline constexpr uint32_t kMaxContinuations = 16;
inline constexpr uint32_t kMaxStops = 16;
inline constexpr uint32_t kMaxStopBytes = 256;
inline constexpr uint32_t kMaxScoreSequences = 1024;
inline constexpr uint32_t kMaxRequestIdBytes = 128;  // also of tenants and salts
inline constexpr uint32_t kMaxLogitBiases = 1024;
inline constexpr double kMaxLogitBias = 100;
// Logits divided by less might overflow float32.
inline constexpr double kMinRepetitionPenalty = 0.01;
inline constexpr double kMaxRepetitionPenalty = 10;
inline constexpr uint32_t kMaxLogprobs = 20;
inline constexpr int32_t kMaxPriority = 100;

// What the served model allows and prefers.
struct ModelLimits {
  uint32_t vocab_size = 0;
  uint32_t max_context_tokens = 0;  // of one sequence, prompt and new tokens together
  double default_temperature = 1.0;
  double default_top_p = 1.0;
  int64_t default_top_k = 0;
  std::vector<TokenId> eos_tokens{};  // that end a sequence
};

// As asked; unset means the default. The field names in errors are those of SamplingParams.
struct SamplingRequest {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::optional<int64_t> max_new_tokens;
  std::optional<int64_t> n;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  std::optional<double> typical_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::vector<std::pair<int64_t, double>> logit_bias;  // token id, bias
  std::optional<int64_t> min_new_tokens;
};

// What the answer has beside the text; fields of GenerateRequest.
struct OutputRequest {
  std::optional<int64_t> logprobs;
  std::optional<int64_t> prompt_logprobs;
  std::optional<int64_t> best_of;
  bool echo = false;
};

// Whose request it is; fields of GenerateRequest and ScoreRequest.
struct ServiceRequest {
  int64_t priority = 0;
  std::string tenant{};
  std::string cache_salt{};
};

// InvalidArgument naming the field unless the id is empty or at most 128 printable ASCII bytes.
absl::Status ValidateRequestId(const std::string& request_id);

// Every parameter that can be judged without the prompt.
absl::Status ValidateSampling(const SamplingRequest& sampling, const ModelLimits& limits);
// `sampling` says how many continuations there are.
absl::Status ValidateOutput(const OutputRequest& output, const SamplingRequest& sampling);
absl::StatusOr<Service> MakeService(ServiceRequest service);

// Ids of a prompt or scored sequence: not empty, inside the vocabulary, at most `max_tokens` long
// (reason CONTEXT_LENGTH_EXCEEDED otherwise). `field` is named in the error.
absl::Status ValidateTokens(const std::vector<TokenId>& tokens, const std::string& field,
                            uint32_t max_tokens, const ModelLimits& limits);

struct GenerateInput {
  std::vector<TokenId> prompt;
  std::string prompt_field;  // named in errors about the prompt: "text", "tokens.ids", "chat"
  SamplingRequest sampling;
  OutputRequest output{};
  ServiceRequest service{};
  uint64_t drawn_seed = 0;  // used when the request has none
  absl::Time deadline = absl::InfiniteFuture();
};

// Checks everything and applies the defaults.
absl::StatusOr<GenerateTask> MakeGenerateTask(GenerateInput input, const ModelLimits& limits);

struct ScoreInput {
  std::vector<std::vector<TokenId>> sequences;
  bool return_logits = false;
  int64_t top_n = 0;
  ServiceRequest service{};
  absl::Time deadline = absl::InfiniteFuture();
};

absl::StatusOr<ScoreTask> MakeScoreTask(ScoreInput input, const ModelLimits& limits);

}  // namespace essor::coordinator
