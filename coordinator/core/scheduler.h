// Decides what every step computes: continuous batching over paged KV memory. docs/scheduling.md
// explains the decisions with an example.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/core/fair_queue.h"
#include "coordinator/core/kv_cache.h"
#include "coordinator/core/request.h"
#include "coordinator/core/step.h"
#include "coordinator/core/step_time.h"
#include "model/plan/kv_kinds.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::coordinator {

// What the scheduler must know of the model.
struct OutputModel {
  const model::Tokenizer* tokenizer = nullptr;  // null: outputs carry no text
  std::vector<TokenId> eos_tokens;
  uint32_t vocab_size = 0;
};

// A pure state machine: no clock, thread or socket. Thread-compatible. The same calls give the same
// steps and events.
//
// Each step serves in every data-parallel group, under max_step_tokens and the KV memory: one token
// of every decoding sequence, then chunks of prompts. Sequences that run are ordered by priority,
// then by when they were admitted. Requests wait in a FairQueue; one is admitted when a slot is
// free and blocks for its prompt and reserve_new_tokens new ones can be promised. A sequence that
// grows beyond that when memory is short puts the last in the order back (which is computed again
// later, from what it has generated, to the same tokens); so does a request of higher priority. The
// first in the order can always go on: nothing waits for ever.
//
// num_stages + 1 steps are in flight at most, so that the workers always have a next one: a
// sequence decodes again, from a token that is perhaps not known here yet, when num_stages steps
// have passed. What turns out to be behind a sequence's end is dropped.
//
// Legal order: Reset, then PlanStep and ApplyOutcome (of the oldest step in flight), with at most
// max_in_flight() steps planned and not applied; Submit, Cancel, ExpireDeadlines and FailAll at any
// time. Results for sequences that are gone are ignored, and slots released by the next step.
class Scheduler {
 public:
  enum class ShareCache { kAll, kTenant };  // who finds whose prefixes

  struct Options {
    uint32_t max_running_requests = 64;
    uint32_t max_queued_requests = 1024;  // beyond those that could run at once
    uint32_t num_groups = 1;              // data-parallel
    uint32_t num_stages = 1;              // pipeline
    uint32_t num_slots = 64;              // of a group: sequences the workers hold; >= 1
    // Of a group; >= num_slots, so that every sequence can decode in each step.
    uint32_t max_step_tokens = 512;
    uint32_t block_tokens = 16;
    uint32_t max_logits_rows = 32;  // rows of full logits that one step may return
    model::KvKinds kinds{.full = true};
    bool prefix_cache = true;
    // Sharing prefixes between tenants shows, by the time to the first token, what others asked.
    ShareCache share_cache = ShareCache::kAll;
    uint32_t reserve_new_tokens = 1024;
    // Steps with decoding sequences carry no more prompt than keeps them within this (StepTarget);
    // zero: see there.
    absl::Duration target_step_time = absl::ZeroDuration();
    std::map<std::string, double> tenant_weights{};  // others: 1
  };

  Scheduler(Options options, OutputModel model);
  ~Scheduler();

  // Begins an epoch with empty workers. Only while no request is alive. `capacity`: of each group.
  void Reset(const model::KvCapacity& capacity);

  // ResourceExhausted with a retry delay when the queue is full; FailedPrecondition when the
  // request could never fit into the KV blocks. The tasks are valid (see request_validation.h).
  absl::Status Submit(RequestId id, GenerateTask task, absl::Time now);
  absl::Status Submit(RequestId id, ScoreTask task, absl::Time now);

  // Ends a request with `reason`; unknown (finished) ids are ignored.
  void Cancel(RequestId id, const absl::Status& reason, std::vector<RequestEvent>* events);
  // Ends with DeadlineExceeded every request whose deadline has come, and those that wait whose
  // prompt alone takes longer than is left.
  void ExpireDeadlines(absl::Time now, std::vector<RequestEvent>* events);
  // Ends all requests, for example when the epoch is lost. Steps in flight are still to be applied.
  void FailAll(const absl::Status& reason, std::vector<RequestEvent>* events);

  uint32_t max_in_flight() const { return options_.num_stages + 1; }
  uint32_t num_in_flight() const;
  // The next step, or nullopt when there is nothing to compute now. num_in_flight() is below
  // max_in_flight().
  std::optional<Step> PlanStep(absl::Time now);
  // Takes the answer to the oldest step in flight: one part per answering worker, in any order.
  // Internal, with nothing changed, when it does not fit the step: the workers are broken.
  absl::Status ApplyOutcome(std::span<StepOutcome> parts, absl::Time now,
                            std::vector<RequestEvent>* events);

  uint32_t num_running_requests() const { return num_running_; }
  uint32_t num_waiting_requests() const {
    return static_cast<uint32_t>(requests_.size()) - num_running_;
  }
  uint32_t num_running_sequences() const;
  // Put back for want of memory and not running again yet.
  uint32_t num_parked_sequences() const { return static_cast<uint32_t>(parked_.size()); }
  uint64_t num_preemptions() const { return num_preemptions_; }    // since construction
  uint64_t generated_tokens() const { return generated_tokens_; }  // likewise
  uint64_t cached_tokens() const { return cached_tokens_; }        // likewise, of prompts
  uint64_t discarded_tokens() const { return discarded_tokens_; }  // sampled behind an end
  uint32_t num_groups() const { return options_.num_groups; }
  const KvCache& kv(uint32_t group) const;
  // How long the oldest step in flight should take; zero without one or without experience.
  absl::Duration ExpectedStepTime() const;
  double Served(const std::string& tenant);  // see FairQueue; of a tenant with a live request

 private:
  struct Request;
  struct Sequence;
  struct Group;
  struct Entry;       // a sequence's part in a step in flight
  struct InFlight;    // a step in flight
  struct Planning;    // a step being planned
  struct ByUrgency {  // priority, then age
    bool operator()(const Sequence* a, const Sequence* b) const;
  };

  absl::Status Enqueue(std::unique_ptr<Request> request, absl::Time now);
  absl::Duration RetryDelay() const;
  absl::Duration LeastTimeToFirstToken(const Request& request) const;

  // Admission (scheduler_admission.cc).
  struct Next {  // to be admitted: a parked sequence, or the first of the request in front
    Sequence* parked = nullptr;
    Request* front = nullptr;
  };
  Next NextToStart() const;
  void Admit(Planning* planning);
  void MakeRoom();
  bool CouldMakeRoom(const Group& group, const Request& request, uint32_t index,
                     std::span<const TokenId> tokens) const;
  bool HasRoomFor(const Request& request, uint32_t index, std::span<const TokenId> tokens) const;
  bool AdmitFront(Request* request, Planning* planning);
  bool TryStart(Sequence* sequence, Planning* planning);
  std::optional<uint32_t> GroupFor(const KvCache::Begin& begin, const Planning& planning) const;
  std::optional<KvCache::Found> FindMemory(Sequence* sequence, const KvCache::Begin& begin,
                                           Group* group);
  KvCache::Begin BeginOf(const Request& request, uint32_t index, std::span<const TokenId> tokens,
                         StepId step) const;
  SlotStart StartOf(const Sequence& sequence, const KvCache::Found& found) const;
  Sequence* AddSequence(Request* request, uint32_t index) const;
  bool HasPrompt(const Sequence& sequence) const;
  bool WaitsForPrompt(const Sequence& sequence) const;

  // Planning (scheduler_plan.cc).
  void FindRoomForPrompts(Group* group);
  void AddDecodes(Group* group, Planning* planning);
  bool CanDecode(const Sequence& sequence, StepId step) const;
  bool FindRoom(Sequence* sequence, Group* group);
  void AddDecode(Sequence* sequence, Planning* planning);
  void AddPrefill(Sequence* sequence, Planning* planning);
  uint32_t ChunkOf(const Sequence& sequence, const Planning& planning) const;
  static SequenceStep ChunkStep(const Sequence& sequence, uint32_t chunk);
  bool AnyDecodes() const;
  void SetPrefillBudgets(Planning* planning) const;

  // The lives of sequences and requests (scheduler.cc).
  void Preempt(Sequence* sequence);
  void Vacate(Sequence* sequence);
  void EndSequence(Sequence* sequence);
  void WatchDeadline(Request* request, absl::Time now);
  void EndRequest(Request* request, const absl::Status& status, std::vector<RequestEvent>* events);
  uint32_t GroupIndex(uint32_t slot) const { return slot / options_.num_slots; }
  Group& GroupOf(uint32_t slot);
  const Group& GroupOf(uint32_t slot) const;

  // Outcomes (scheduler_outcome.cc).
  absl::Status CheckOutcome(const InFlight& step, std::span<const StepOutcome> parts);
  absl::Status CheckScores(const Entry& entry, const ScoreRows& rows) const;
  Sequence* SequenceOf(const Entry& entry);
  void ApplyToken(Sequence* sequence, TokenId token, TokenLogprob* logprob, absl::Time now,
                  std::vector<RequestEvent>* events);
  void ApplyScores(Sequence* sequence, const Entry& entry, ScoreRows rows, absl::Time now,
                   std::vector<RequestEvent>* events);
  void TellPrompt(Request* request, std::vector<RequestEvent>* events);
  void Tell(Sequence* sequence, TokenOutput output, std::vector<RequestEvent>* events);
  void TellBest(Request* request, std::vector<RequestEvent>* events);
  void FinishSequence(Sequence* sequence, absl::Time now, std::vector<RequestEvent>* events);

  const Options options_;
  const OutputModel model_;
  std::vector<Group> groups_;
  FairQueue queue_;
  StepId next_step_{1};
  uint64_t next_start_ = 1;                                           // numbers the uses of slots
  uint64_t next_arrival_ = 1;                                         // numbers requests
  absl::flat_hash_map<uint64_t, std::unique_ptr<Request>> requests_;  // by RequestId
  std::set<Sequence*, ByUrgency> parked_;  // admitted once, or continuations of requests that were
  std::set<std::pair<absl::Time, RequestId>> deadlines_;
  std::vector<InFlight> in_flight_;      // oldest first
  std::vector<uint32_t> entry_of_slot_;  // scratch of ApplyOutcome
  uint32_t num_running_ = 0;             // requests with a sequence that runs
  StepTimeModel step_time_;
  absl::Time last_done_ = absl::InfinitePast();  // of steps
  uint64_t num_preemptions_ = 0;
  uint64_t generated_tokens_ = 0;
  uint64_t cached_tokens_ = 0;
  uint64_t discarded_tokens_ = 0;
  // Smoothed time between two requests' ends, for the retry delay.
  absl::Duration completion_interval_ = absl::ZeroDuration();
  absl::Time last_completion_ = absl::InfinitePast();
};

}  // namespace essor::coordinator
