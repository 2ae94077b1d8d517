// Decides what every step computes: continuous batching with exact reservations.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/core/block_pool.h"
#include "coordinator/core/request.h"
#include "coordinator/core/step.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::coordinator {

// What the scheduler must know of the model.
struct OutputModel {
  const model::Tokenizer* tokenizer = nullptr;  // null: outputs carry no text
  std::vector<TokenId> eos_tokens;
  uint32_t vocab_size = 0;
};

// A pure state machine: no clock, thread or socket. Thread-compatible.
//
// Each step serves, under max_step_tokens: one token of every decoding sequence; then prefill
// chunks of running sequences in the order of their admission; then waiting requests in the order
// of arrival. A sequence is admitted only when a slot is free and all KV blocks that it can ever
// need are reservable, so a running sequence never waits for memory and nothing is ever preempted.
//
// Legal order: Reset, then (PlanStep, ApplyOutcome)* with at most one step planned and not yet
// applied; Submit, Cancel, ExpireDeadlines and FailAll at any time. What happens to a request
// whose sequences are in the planned step is remembered: their results are ignored and their slots
// released by the next step.
class Scheduler {
 public:
  struct Options {
    uint32_t max_running_requests = 64;
    uint32_t max_queued_requests = 1024;  // beyond those that could run at once
    uint32_t num_slots = 64;              // sequences the workers hold; >= 1
    uint32_t max_step_tokens = 512;       // >= num_slots, so that every sequence decodes each step
    uint32_t block_tokens = 16;
    uint32_t max_logits_rows = 32;  // rows of full logits that one step may return
  };

  Scheduler(Options options, OutputModel model);
  ~Scheduler();

  // Begins an epoch with empty workers. Only while no request is alive.
  void Reset(uint32_t num_blocks);

  // ResourceExhausted with a retry delay when the queue is full; FailedPrecondition when the
  // request could never fit into the KV blocks. The tasks are valid (see request_validation.h).
  absl::Status Submit(RequestId id, GenerateTask task, absl::Time now);
  absl::Status Submit(RequestId id, ScoreTask task, absl::Time now);

  // Ends a request with `reason`; unknown (finished) ids are ignored.
  void Cancel(RequestId id, const absl::Status& reason, std::vector<RequestEvent>* events);
  // Ends every request whose deadline has come with DeadlineExceeded.
  void ExpireDeadlines(absl::Time now, std::vector<RequestEvent>* events);
  // Ends all requests, for example when the epoch is lost.
  void FailAll(const absl::Status& reason, std::vector<RequestEvent>* events);

  // The next step, or nullopt when there is nothing to compute.
  std::optional<Step> PlanStep(absl::Time now);
  // Takes the answer to the planned step. Internal, with nothing changed, when the outcome does not
  // fit the step: the worker that sent it is broken.
  absl::Status ApplyOutcome(StepOutcome outcome, absl::Time now, std::vector<RequestEvent>* events);

  uint32_t num_running_requests() const { return num_running_; }
  uint32_t num_waiting_requests() const { return static_cast<uint32_t>(waiting_.size()); }
  uint32_t num_running_sequences() const { return static_cast<uint32_t>(running_.size()); }
  const BlockPool& blocks() const { return blocks_; }
  uint64_t generated_tokens() const { return generated_tokens_; }  // since construction

 private:
  struct Request;
  struct Sequence;
  struct InFlight {  // one entry of the planned step
    uint32_t slot = 0;
    bool samples = false;
    bool scores = false;
    uint32_t first_position = 0;
    uint32_t num_rows = 0;
    uint32_t num_targets = 0;
    bool returns_logits = false;
  };
  struct Budget {
    uint32_t tokens = 0;
    uint32_t logits_rows = 0;
  };

  absl::Status Enqueue(std::unique_ptr<Request> request, absl::Time now);
  absl::Duration RetryDelay() const;
  bool TryAdmit(Request* request, Step* step, absl::Time now);
  void AddDecode(Sequence* sequence, Step* step, Budget* budget);
  void AddPrefill(Sequence* sequence, Step* step, Budget* budget);
  void GrowBlocks(Sequence* sequence, uint32_t num_tokens, SequenceStep* entry);
  absl::Status CheckOutcome(const StepOutcome& outcome) const;
  void ApplyToken(Sequence* sequence, TokenId token, absl::Time now,
                  std::vector<RequestEvent>* events);
  void ApplyScores(Sequence* sequence, const InFlight& entry, ScoreRows rows, absl::Time now,
                   std::vector<RequestEvent>* events);
  void FinishSequence(Sequence* sequence, absl::Time now, std::vector<RequestEvent>* events);
  void FreeSlot(uint32_t slot);
  void DropFinishedFromRunning();
  void EndRequest(Request* request, const absl::Status& status, std::vector<RequestEvent>* events);

  const Options options_;
  const OutputModel model_;
  BlockPool blocks_;
  StepId next_step_{1};
  absl::flat_hash_map<uint64_t, std::unique_ptr<Request>> requests_;  // by RequestId
  std::list<Request*> waiting_;  // arrival order; the head may be partly admitted
  std::set<std::pair<absl::Time, RequestId>> deadlines_;
  std::vector<std::unique_ptr<Sequence>> slots_;  // null = free
  std::vector<uint32_t> free_slots_;              // a stack
  std::vector<uint32_t> running_;                 // slots in admission order
  std::vector<uint32_t> to_release_;              // slots the workers still hold
  std::vector<InFlight> in_flight_;
  bool step_planned_ = false;
  uint32_t num_running_ = 0;
  uint64_t generated_tokens_ = 0;
  // Smoothed time between two requests' ends, for the retry delay.
  absl::Duration completion_interval_ = absl::ZeroDuration();
  absl::Time last_completion_ = absl::InfinitePast();
};

}  // namespace essor::coordinator
