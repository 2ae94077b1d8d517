// Requests as the scheduler sees them (validated, tokenised) and what it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/core/step.h"

namespace essor::coordinator {

// One request inside the coordinator; never reused.
using RequestId = StrongId<struct RequestIdTag, uint64_t>;

// Whose request it is and how urgent.
struct Service {
  int32_t priority = 0;      // higher ones first
  std::string tenant{};      // tenants share the cluster by weight
  std::string cache_salt{};  // only requests of equal salt share cached prefixes
};

// Continue one prompt `num_continuations` times.
struct GenerateTask {
  std::shared_ptr<const std::vector<TokenId>> prompt;  // shared by the continuations; not empty
  SamplingSettings sampling{};                         // of continuation 0
  uint32_t num_continuations = 1;
  uint32_t max_new_tokens = 1;
  bool ignore_eos = false;
  std::vector<std::string> stop{};        // stop strings
  std::vector<TokenId> stop_token_ids{};  // beside the model's end-of-sequence tokens
  bool skip_special = true;               // leave special tokens out of the text
  // Of this many continuations only num_continuations are told, those whose tokens are the most
  // probable on average, when all have ended. 0 = num_continuations, told as they grow.
  uint32_t best_of = 0;
  bool echo = false;  // tell the prompt first (PromptOutput)
  // Log-probabilities of the prompt's tokens and the n most probable in their places.
  std::optional<uint32_t> prompt_logprobs{};
  Service service{};
  absl::Time deadline = absl::InfiniteFuture();
};

// Log-probabilities of given tokens.
struct ScoreTask {
  std::vector<std::vector<TokenId>> sequences{};  // none empty
  bool return_logits = false;
  uint32_t top_n = 0;  // also the most probable tokens in place of each
  Service service{};
  absl::Time deadline = absl::InfiniteFuture();
};

enum class FinishReason { kNone, kStop, kLength };

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t generated_tokens = 0;
  uint32_t cached_tokens = 0;  // of the prompt, found in the prefix cache
};

// Durations since the request was accepted.
struct Timing {
  absl::Duration queue;        // until first scheduled
  absl::Duration first_token;  // until its first token arrived
  absl::Duration total;        // until its last token arrived
};

// Tokens that became final for one continuation.
struct TokenOutput {
  uint32_t index = 0;
  std::vector<TokenId> token_ids{};
  std::string
      text{};  // whole characters; may lag behind the tokens while a stop string is possible
  std::vector<TokenLogprob> logprobs{};  // parallel to token_ids, when asked for
  FinishReason finish_reason = FinishReason::kNone;
  Usage usage{};    // valid with a finish reason
  Timing timing{};  // likewise
};

// The prompt, told once before the first token when the request has `echo` or `prompt_logprobs`.
struct PromptOutput {
  std::vector<TokenId> token_ids{};
  std::string text{};                    // with `echo`
  std::vector<TokenLogprob> logprobs{};  // of token_ids[1..], with `prompt_logprobs`
};

// The rows of one chunk of a scored sequence.
struct ScoreOutput {
  uint32_t sequence_index = 0;
  uint32_t first_position = 0;
  uint32_t num_positions = 0;
  std::vector<float> logprobs{};
  std::string logits{};
  std::vector<std::vector<std::pair<TokenId, float>>> tops{};  // parallel to logprobs, with top_n
};

// Something the owner of a request must be told. Exactly one of the optionals is set; `done` is the
// last event of a request.
struct RequestEvent {
  RequestId request{};
  std::optional<TokenOutput> tokens{};
  std::optional<ScoreOutput> scores{};
  std::optional<PromptOutput> prompt{};
  std::optional<absl::Status> done{};
};

}  // namespace essor::coordinator
