// The scheduler's records of requests, sequences and steps; for scheduler*.cc only.
#pragma once

#include <memory>
#include <optional>
#include <tuple>
#include <variant>
#include <vector>

#include "coordinator/core/output_text.h"
#include "coordinator/core/scheduler.h"

namespace essor::coordinator {

struct Scheduler::Request {
  RequestId id;
  std::variant<GenerateTask, ScoreTask> task;
  uint64_t arrival = 0;
  uint32_t tenant = 0;  // of queue_
  std::string salt;     // of the prefix cache
  uint32_t num_sequences = 1;
  uint32_t num_finished = 0;
  uint32_t num_running = 0;  // sequences in slots
  bool waiting = true;       // in queue_; then there are no sequences yet
  FairQueue::Place place{};
  std::vector<std::unique_ptr<Sequence>> sequences;  // those alive, in no order
  absl::Time deadline;
  absl::Time deadline_check;  // its key in deadlines_
  absl::Time accepted;
  absl::Time first_scheduled = absl::InfiniteFuture();
  uint32_t cached_tokens = 0;  // that the first sequence found

  // With prompt_logprobs or echo: told once, before the first token.
  bool prompt_told = false;
  std::vector<TokenLogprob> prompt_logprobs;
  // With best_of: what the continuations said until all have ended.
  struct Held {
    uint32_t index = 0;
    double logprob_sum = 0;
    TokenOutput output{};
  };
  std::vector<Held> held;

  const GenerateTask* generate() const { return std::get_if<GenerateTask>(&task); }
  const ScoreTask* score() const { return std::get_if<ScoreTask>(&task); }
  const Service& service() const { return generate() ? generate()->service : score()->service; }
  int32_t priority() const { return service().priority; }

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
  bool HoldsBack() const { return generate() != nullptr && generate()->best_of > 0; }
  bool ScoresPrompt(uint32_t index) const {
    return index == 0 && !prompt_told && generate() != nullptr &&
           generate()->prompt_logprobs.has_value();
  }
};

// One stream of tokens: running in a slot, or parked without one.
struct Scheduler::Sequence {
  Request* request = nullptr;
  uint32_t index = 0;             // within the request
  uint64_t start = 0;             // number of its use of a slot; 0 = parked
  uint32_t slot = 0;              // while it runs
  KvSequence kv{};                // kv.num_tokens positions were given to steps
  std::vector<TokenId> tokens{};  // input (InputLength of them), then generated
  uint32_t input_length = 0;
  uint32_t prefill_target = 0;  // positions known when it started
  uint32_t branch_tokens = 0;   // see KvCache::Found
  StepId prefilled_by{};        // the step that computes the last of them
  uint32_t num_pending = 0;     // tokens that steps in flight sample for it
  StepId sampled_by{};          // the last step that samples for it
  uint32_t scores_told = 0;     // with a ScoreTask: positions, from the first on
  absl::Time first_token = absl::InfiniteFuture();
  std::unique_ptr<OutputText> text{};  // null for scored sequences

  bool running() const { return start != 0; }
  bool prefilling() const { return kv.num_tokens < prefill_target; }
  uint32_t num_generated() const { return static_cast<uint32_t>(tokens.size()) - input_length; }
  bool WantsToken() const {
    return request->generate() != nullptr &&
           num_generated() + num_pending < request->generate()->max_new_tokens;
  }
  bool Decodes() const { return !prefilling() && WantsToken(); }  // now or in a later step
};

// A data-parallel group.
struct Scheduler::Group {
  KvCache kv;
  uint32_t first_slot = 0;
  std::vector<Sequence*> slots;      // by slot - first_slot; null = free
  std::vector<uint32_t> free_slots;  // a stack
  std::vector<uint32_t> to_release;  // slots the workers still hold
  std::vector<Sequence*> running{};  // by urgency
  uint64_t num_to_prefill = 0;       // tokens of its prompts not given to steps yet
};

struct Scheduler::Entry {
  uint32_t slot = 0;
  uint64_t start = 0;
  bool samples = false;
  bool wants_logprob = false;
  bool scores = false;
  bool returns_logits = false;
  bool last_of_input = false;  // of what is scored
  uint32_t first_position = 0;
  uint32_t num_rows = 0;
  uint32_t num_targets = 0;
  bool score_top = false;
};

struct Scheduler::InFlight {
  StepId id{};
  std::vector<Entry> entries{};
  absl::Time planned;
  uint32_t decode_rows = 0;   // of the group with most to do
  uint32_t prefill_rows = 0;  // likewise
};

struct Scheduler::Planning {
  Step step{};
  std::vector<Entry> entries{};
  absl::Time now;
  struct GroupBudget {
    uint32_t tokens = 0;   // left
    uint32_t prefill = 0;  // left, of those
    uint32_t decode_rows = 0;
    uint32_t prefill_rows = 0;
  };
  std::vector<GroupBudget> budgets;  // per group
  uint32_t logits_rows = 0;          // left
};

}  // namespace essor::coordinator
