// One forward pass as the core sees it; coordinator/service maps it to and from protobuf.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/ids.h"

namespace essor::coordinator {

// How the next token is drawn. With the position, `seed` is the whole key of the random numbers.
struct SamplingSettings {
  float temperature = 1.0f;  // 0 = greedy
  float top_p = 1.0f;
  int32_t top_k = 0;  // 0 = off
  float min_p = 0.0f;
  uint64_t seed = 0;
};

// A sequence enters a slot of the workers.
struct SlotStart {
  uint32_t slot = 0;
  SamplingSettings sampling{};
};

// What one sequence contributes to a step.
struct SequenceStep {
  uint32_t slot = 0;
  std::vector<TokenId> tokens{};      // the chunk; empty = the token sampled last
  std::vector<BlockId> new_blocks{};  // appended to the slot's block table first
  bool hold = false;                  // do not sample after the chunk
  bool score = false;
  std::vector<TokenId> score_targets{};  // with score: the token whose log-probability row i gives
  bool return_logits = false;
};

struct Step {
  StepId step_id{};
  std::vector<uint32_t> release_slots;  // applied first
  std::vector<SlotStart> starts{};      // then these
  std::vector<SequenceStep> sequences{};
  uint32_t num_tokens = 0;  // computed by the step, at most the token budget
};

struct SampledToken {
  uint32_t slot = 0;
  TokenId token = 0;
};

struct ScoreRows {
  uint32_t slot = 0;
  std::vector<float> logprobs{};
  std::string logits{};  // float32 little-endian [rows, vocabulary], or empty
};

// What the worker with the last stage's first rank answers to a step.
struct StepOutcome {
  std::vector<SampledToken> sampled{};  // one per sequence without hold, in the step's order
  std::vector<ScoreRows> scores{};      // one per sequence with score
};

}  // namespace essor::coordinator
