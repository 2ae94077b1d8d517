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
  absl::Time deadline = absl::InfiniteFuture();
};

// Log-probabilities of given tokens.
struct ScoreTask {
  std::vector<std::vector<TokenId>> sequences{};  // none empty
  bool return_logits = false;
  absl::Time deadline = absl::InfiniteFuture();
};

enum class FinishReason { kNone, kStop, kLength };

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t generated_tokens = 0;
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
  FinishReason finish_reason = FinishReason::kNone;
  Usage usage{};    // valid with a finish reason
  Timing timing{};  // likewise
};

// The rows of one chunk of a scored sequence.
struct ScoreOutput {
  uint32_t sequence_index = 0;
  uint32_t first_position = 0;
  uint32_t num_positions = 0;
  std::vector<float> logprobs{};
  std::string logits{};
};

// Something the owner of a request must be told. Exactly one of the optionals is set; `done` is the
// last event of a request.
struct RequestEvent {
  RequestId request{};
  std::optional<TokenOutput> tokens{};
  std::optional<ScoreOutput> scores{};
  std::optional<absl::Status> done{};
};

}  // namespace essor::coordinator
