// One step as a rank sees it, free of protobuf (see proto/essor/v1/cluster.proto for the meaning of
// the fields; the session translates).
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"

namespace essor::worker {

// How a sequence's tokens are chosen; fixed while it lives.
struct SequenceSampling {
  float temperature = 0;  // 0 = greedy
  float top_p = 1;
  int32_t top_k = 0;  // 0 = off
  float min_p = 0;
  uint64_t seed = 0;
  float typical_p = 1;           // 1 = off
  float repetition_penalty = 1;  // of prompt and new tokens; 1 = off
  float presence_penalty = 0;    // of new tokens
  float frequency_penalty = 0;   // likewise
  std::vector<std::pair<TokenId, float>> logit_bias = {};
  std::vector<TokenId> late_tokens = {};  // never chosen before min_new_tokens tokens are
  uint32_t min_new_tokens = 0;
  std::optional<uint32_t> logprobs = {};  // of the chosen token and the n most probable
};

struct StepInput {
  StepId step_id;
  absl::Time deadline = absl::InfiniteFuture();
  std::vector<uint32_t> release_slots;  // applied first

  struct Start {
    uint32_t slot;
    SequenceSampling sampling;
    // Positions before this are in the blocks already, and the states in the snapshot.
    uint32_t context_tokens = 0;
    std::vector<uint32_t> blocks = {};
    uint32_t first_window_block = 0;  // of the sequence, that window_blocks[0] holds
    std::vector<uint32_t> window_blocks = {};
    std::optional<uint32_t> restore_snapshot = {};
    uint32_t prompt_tokens = 0;             // tokens from this position on are new ones
    std::vector<TokenId> seen_tokens = {};  // before context_tokens, where sampling needs them
  };
  std::vector<Start> starts;  // then these

  struct Copy {
    uint32_t group = 0;  // data-parallel group
    uint32_t from = 0;
    uint32_t to = 0;
    bool window = false;  // of the layers that read the last positions
  };
  std::vector<Copy> copies = {};  // then these

  // Decoding slots come first, with everything but `slot` unset.
  struct Sequence {
    uint32_t slot = 0;
    std::vector<TokenId> tokens = {};         // empty = the last sampled token
    std::vector<uint32_t> new_blocks = {};    // appended to the slot's block table first
    bool sample = true;                       // choose the token after the last row
    bool score = false;                       // log p(score_targets[i]) at row i
    std::vector<TokenId> score_targets = {};  // at most one per row
    bool return_logits = false;               // of every row
    std::vector<uint32_t> new_window_blocks = {};
    std::optional<uint32_t> save_snapshot = {};  // where the states after the chunk are copied to
    uint32_t score_top = 0;                      // with score: the n most probable of each row
  };
  std::vector<Sequence> sequences;
};

// Log-probability of a token, and the most probable ones in its place (the most probable first).
struct TokenLogprob {
  float logprob = 0;
  std::vector<std::pair<TokenId, float>> top = {};
};

struct StepOutput {
  StepId step_id;
  struct Sampled {
    uint32_t slot;
    TokenId token;  // kNoToken where the row's logits are not finite
  };
  std::vector<Sampled> sampled;             // in the order of StepInput::sequences
  std::vector<TokenLogprob> logprobs = {};  // of those whose sampling asks, in the same order

  struct Scored {
    uint32_t slot;
    std::vector<float> logprobs;  // one per target
    std::vector<float> logits;    // [rows, vocabulary] or empty
    std::vector<std::vector<std::pair<TokenId, float>>> tops =
        {};  // one per target, with score_top
  };
  std::vector<Scored> scored;
  absl::Duration compute_time;
};

}  // namespace essor::worker
