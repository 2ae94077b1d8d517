// The scheduler's records of requests and sequences; for scheduler*.cc only.
#pragma once

#include <list>
#include <memory>
#include <variant>
#include <vector>

#include "coordinator/core/output_text.h"
#include "coordinator/core/scheduler.h"

namespace essor::coordinator {

struct Scheduler::Request {
  RequestId id;
  std::variant<GenerateTask, ScoreTask> task;
  uint32_t num_sequences = 1;
  uint32_t num_admitted = 0;  // sequences 0 .. num_admitted-1 have been given slots
  uint32_t num_finished = 0;
  std::vector<uint32_t> slots;  // of its running sequences
  // Valid while num_admitted < num_sequences.
  std::list<Request*>::iterator waiting_position;
  absl::Time deadline;
  absl::Time accepted;
  absl::Time first_scheduled = absl::InfiniteFuture();

  const GenerateTask* generate() const { return std::get_if<GenerateTask>(&task); }
  const ScoreTask* score() const { return std::get_if<ScoreTask>(&task); }

  // The tokens that sequence `index` gives to steps.
  const std::vector<TokenId>& Input(uint32_t index) const {
    return generate() != nullptr ? *generate()->prompt : score()->sequences[index];
  }
  // Positions of sequence `index` that are computed as chunks, at least one. The last token of a
  // scored sequence has no next token, so it is computed only for its logits.
  uint32_t InputLength(uint32_t index) const {
    const auto length = static_cast<uint32_t>(Input(index).size());
    const bool skip_last = score() != nullptr && !score()->return_logits && length > 1;
    return skip_last ? length - 1 : length;
  }
  // KV slots sequence `index` needs at most. The last new token's KV is never needed.
  uint32_t MaxKvTokens(uint32_t index) const {
    return InputLength(index) + (generate() != nullptr ? generate()->max_new_tokens - 1 : 0);
  }
};

struct Scheduler::Sequence {
  Request* request = nullptr;
  uint32_t index = 0;  // within the request
  uint32_t slot = 0;
  uint32_t num_prefilled = 0;  // input tokens given to steps
  uint32_t num_generated = 0;
  std::vector<BlockId> blocks;
  uint32_t reserved_blocks = 0;  // not taken yet
  absl::Time first_token = absl::InfiniteFuture();
  std::unique_ptr<OutputText> text;  // null for scored sequences

  bool prefilling() const { return num_prefilled < request->InputLength(index); }
};

}  // namespace essor::coordinator
