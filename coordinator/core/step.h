// One forward pass as the core sees it; coordinator/service maps it to and from protobuf.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/ids.h"

namespace essor::coordinator {

// How the tokens of a sequence are chosen. With the position, `seed` is the whole key of the random
// numbers. Penalties and biases change the logits before everything else.
struct SamplingSettings {
  float temperature = 1.0f;  // 0 = greedy
  float top_p = 1.0f;
  int32_t top_k = 0;  // 0 = off
  float min_p = 0.0f;
  uint64_t seed = 0;
  float typical_p = 1.0f;           // 1 = off
  float repetition_penalty = 1.0f;  // of prompt and new tokens; 1 = off
  float presence_penalty = 0.0f;    // of new tokens
  float frequency_penalty = 0.0f;   // likewise
  std::vector<std::pair<TokenId, float>> logit_bias{};
  std::vector<TokenId> late_tokens{};  // never chosen before min_new_tokens tokens are
  uint32_t min_new_tokens = 0;
  // Log-probabilities (of the unchanged logits) of the chosen token and of the n most probable.
  std::optional<uint32_t> logprobs{};

  // Whether a worker must know all earlier tokens of the sequence.
  bool NeedsTokens() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

// A sequence enters a slot of the workers, with what earlier ones left in the cache for it (see
// SequenceStart in cluster.proto).
struct SlotStart {
  uint32_t slot = 0;
  SamplingSettings sampling{};
  uint32_t context_tokens = 0;  // positions that the blocks hold already
  std::vector<BlockId> blocks{};
  uint32_t first_window_block = 0;
  std::vector<BlockId> window_blocks{};
  std::optional<uint32_t> restore_snapshot{};  // where the states at context_tokens lie
  uint32_t prompt_tokens = 0;                  // tokens from this position on are new ones
  std::vector<TokenId> seen_tokens{};          // before context_tokens, if sampling.NeedsTokens()
};

// What one sequence contributes to a step.
struct SequenceStep {
  uint32_t slot = 0;
  std::vector<TokenId> tokens{};      // the chunk; empty = the token sampled last
  std::vector<BlockId> new_blocks{};  // appended to the slot's block table first
  std::vector<BlockId> new_window_blocks{};
  bool hold = false;  // do not sample after the chunk
  bool score = false;
  std::vector<TokenId> score_targets{};  // with score: the token whose log-probability row i gives
  uint32_t score_top = 0;                // with score: also the n most probable of each row
  bool return_logits = false;
  std::optional<uint32_t> save_snapshot{};  // where the states after the chunk are copied to
};

// All layers of a kind copy a block; `to` is written by nothing else in the step.
struct BlockCopy {
  uint32_t group = 0;  // data-parallel group
  BlockId from{};
  BlockId to{};
  bool window = false;
};

struct Step {
  StepId step_id{};
  std::vector<uint32_t> release_slots{};  // applied first
  std::vector<SlotStart> starts{};        // then these
  std::vector<BlockCopy> copies{};        // then these, before all rows
  // Rows: first these slots, each from the token sampled last, with nothing else to say; then
  // `sequences`.
  std::vector<uint32_t> decode_slots{};
  std::vector<SequenceStep> sequences{};
  uint32_t num_tokens = 0;  // computed by the step, all groups together
};

struct SampledToken {
  uint32_t slot = 0;
  TokenId token = 0;
};

// Log-probability of a token, and the most probable ones in its place (the most probable first).
struct TokenLogprob {
  float logprob = 0;
  std::vector<std::pair<TokenId, float>> top{};
};

struct ScoreRows {
  uint32_t slot = 0;
  std::vector<float> logprobs{};
  std::string logits{};  // float32 little-endian [rows, vocabulary], or empty
  std::vector<std::vector<std::pair<TokenId, float>>> tops{};  // one per log-probability, or empty
};

// What the last stage answers to a step; all groups together, in the step's order.
struct StepOutcome {
  std::vector<SampledToken> sampled{};   // one per sequence without hold, in the step's order
  std::vector<ScoreRows> scores{};       // one per sequence with score
  std::vector<TokenLogprob> logprobs{};  // one per sampled sequence that asks for them, in order
};

}  // namespace essor::coordinator
