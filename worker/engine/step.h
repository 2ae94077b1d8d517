// One step as a rank sees it, free of protobuf (see proto/essor/v1/cluster.proto for the meaning of
// the fields; the session translates).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"

namespace essor::worker {

// Sampling state of a sequence, fixed while it lives.
struct SequenceSampling {
  float temperature = 0;  // 0 = greedy
  float top_p = 1;
  int32_t top_k = 0;  // 0 = off
  float min_p = 0;
  uint64_t seed = 0;
};

struct StepInput {
  StepId step_id;
  absl::Time deadline = absl::InfiniteFuture();
  std::vector<uint32_t> release_slots;  // applied first

  struct Start {
    uint32_t slot;
    SequenceSampling sampling;
  };
  std::vector<Start> starts;  // then these

  struct Sequence {
    uint32_t slot = 0;
    std::vector<TokenId> tokens = {};         // empty = the last sampled token
    std::vector<uint32_t> new_blocks = {};    // appended to the slot's block table first
    bool sample = true;                       // choose the token after the last row
    bool score = false;                       // log p(score_targets[i]) at row i
    std::vector<TokenId> score_targets = {};  // at most one per row
    bool return_logits = false;               // of every row
  };
  std::vector<Sequence> sequences;
};

struct StepOutput {
  StepId step_id;
  struct Sampled {
    uint32_t slot;
    TokenId token;  // kNoToken where the row's logits are not finite
  };
  std::vector<Sampled> sampled;  // in the order of StepInput::sequences

  struct Scored {
    uint32_t slot;
    std::vector<float> logprobs;  // one per target
    std::vector<float> logits;    // [rows, vocabulary] or empty
  };
  std::vector<Scored> scored;
  absl::Duration compute_time;
};

}  // namespace essor::worker
