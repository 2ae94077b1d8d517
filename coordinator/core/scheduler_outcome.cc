// What the answer to a step does to the sequences in it.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/core/scheduler_state.h"

namespace essor::coordinator {
namespace {

bool Contains(const std::vector<TokenId>& tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

// Weights or activations with NaN or infinities: nothing that follows would mean anything.
absl::Status NotFinite() {
  return absl::InternalError("the model's logits are not finite numbers; are its weights intact?");
}

}  // namespace

absl::Status Scheduler::ApplyOutcome(StepOutcome outcome, absl::Time now,
                                     std::vector<RequestEvent>* events) {
  ESSOR_CHECK(step_planned_);
  const absl::Status fits = CheckOutcome(outcome);
  if (!fits.ok()) return fits;
  const std::vector<InFlight> entries = std::exchange(in_flight_, {});
  step_planned_ = false;
  auto token = outcome.sampled.begin();
  auto rows = outcome.scores.begin();
  for (const InFlight& entry : entries) {
    // A slot emptied meanwhile belonged to a request that was cancelled.
    Sequence* const sequence = slots_[entry.slot].get();
    if (entry.samples) {
      if (sequence != nullptr && token->token == kNoToken) {
        EndRequest(sequence->request, NotFinite(), events);
      } else if (sequence != nullptr) {
        ApplyToken(sequence, token->token, now, events);
      }
      ++token;
    }
    if (entry.scores) {
      if (sequence != nullptr) ApplyScores(sequence, entry, std::move(*rows), now, events);
      ++rows;
    }
  }
  DropFinishedFromRunning();
  return absl::OkStatus();
}

absl::Status Scheduler::CheckOutcome(const StepOutcome& outcome) const {
  size_t token = 0;
  size_t rows = 0;
  for (const InFlight& entry : in_flight_) {
    if (entry.samples) {
      if (token == outcome.sampled.size() || outcome.sampled[token].slot != entry.slot) {
        return absl::InternalError(absl::StrCat("no token for slot ", entry.slot));
      }
      if (outcome.sampled[token].token >= model_.vocab_size &&
          outcome.sampled[token].token != kNoToken) {
        return absl::InternalError(
            absl::StrCat("token ", outcome.sampled[token].token, " for slot ", entry.slot,
                         " is outside the vocabulary of ", model_.vocab_size));
      }
      ++token;
    }
    if (entry.scores) {
      if (rows == outcome.scores.size() || outcome.scores[rows].slot != entry.slot ||
          outcome.scores[rows].logprobs.size() != entry.num_targets) {
        return absl::InternalError(
            absl::StrCat("no ", entry.num_targets, " log-probabilities for slot ", entry.slot));
      }
      const size_t logits_bytes = entry.returns_logits ? static_cast<size_t>(entry.num_rows) *
                                                             model_.vocab_size * sizeof(float)
                                                       : 0;
      if (outcome.scores[rows].logits.size() != logits_bytes) {
        return absl::InternalError(absl::StrCat(outcome.scores[rows].logits.size(),
                                                " bytes of logits for slot ", entry.slot,
                                                " instead of ", logits_bytes));
      }
      ++rows;
    }
  }
  if (token != outcome.sampled.size() || rows != outcome.scores.size()) {
    return absl::InternalError("results for slots that were not in the step");
  }
  return absl::OkStatus();
}

void Scheduler::ApplyToken(Sequence* sequence, TokenId token, absl::Time now,
                           std::vector<RequestEvent>* events) {
  const Request& request = *sequence->request;
  const GenerateTask& task = *request.generate();
  ++generated_tokens_;
  if (++sequence->num_generated == 1) sequence->first_token = now;

  TokenOutput output{.index = sequence->index, .token_ids = {token}, .text = {}};
  const bool ends = (!task.ignore_eos && Contains(model_.eos_tokens, token)) ||
                    Contains(task.stop_token_ids, token);
  if (!ends) output.text = sequence->text->Push(token);  // an ending token is no text
  if (ends || sequence->text->stopped()) {
    output.finish_reason = FinishReason::kStop;
  } else if (sequence->num_generated == task.max_new_tokens) {
    output.finish_reason = FinishReason::kLength;
  }
  if (output.finish_reason == FinishReason::kNone) {
    events->push_back(
        {.request = request.id, .tokens = std::move(output), .scores = {}, .done = {}});
    return;
  }
  output.text += sequence->text->Finish();
  if (sequence->text->stopped()) output.finish_reason = FinishReason::kStop;
  output.usage = {.prompt_tokens = static_cast<uint32_t>(task.prompt->size()),
                  .generated_tokens = sequence->num_generated};
  output.timing = {.queue = request.first_scheduled - request.accepted,
                   .first_token = sequence->first_token - request.accepted,
                   .total = now - request.accepted};
  events->push_back({.request = request.id, .tokens = std::move(output), .scores = {}, .done = {}});
  FinishSequence(sequence, now, events);
}

void Scheduler::ApplyScores(Sequence* sequence, const InFlight& entry, ScoreRows rows,
                            absl::Time now, std::vector<RequestEvent>* events) {
  const bool usable = std::none_of(rows.logprobs.begin(), rows.logprobs.end(),
                                   [](float logprob) { return std::isnan(logprob); });
  if (!usable) return EndRequest(sequence->request, NotFinite(), events);
  const Request& request = *sequence->request;
  const auto length = static_cast<uint32_t>(request.Input(sequence->index).size());
  const bool last = !sequence->prefilling();
  // Without logits the last position is covered although nothing had to be computed for it.
  const uint32_t num_positions = last ? length - entry.first_position : entry.num_rows;
  ScoreOutput output{.sequence_index = sequence->index,
                     .first_position = entry.first_position,
                     .num_positions = num_positions,
                     .logprobs = std::move(rows.logprobs),
                     .logits = std::move(rows.logits)};
  events->push_back({.request = request.id, .tokens = {}, .scores = std::move(output), .done = {}});
  if (last) FinishSequence(sequence, now, events);
}

void Scheduler::FinishSequence(Sequence* sequence, absl::Time now,
                               std::vector<RequestEvent>* events) {
  Request* const request = sequence->request;
  const uint32_t slot = sequence->slot;
  std::erase(request->slots, slot);
  FreeSlot(slot);  // destroys `sequence`; running_ is cleaned up by the caller
  if (++request->num_finished < request->num_sequences) return;
  if (last_completion_ != absl::InfinitePast()) {
    completion_interval_ = (completion_interval_ * 7 + (now - last_completion_)) / 8;
  }
  last_completion_ = now;
  EndRequest(request, absl::OkStatus(), events);
}

}  // namespace essor::coordinator
