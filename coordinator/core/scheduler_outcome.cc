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

constexpr uint32_t kNoEntry = UINT32_MAX;

bool Contains(const std::vector<TokenId>& tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

// Weights or activations with NaN or infinities: nothing that follows would mean anything.
absl::Status NotFinite() {
  return absl::InternalError("the model's logits are not finite numbers; are its weights intact?");
}

// Leaves out the first `count` of `num_rows` rows.
void DropRows(uint32_t count, uint32_t num_rows, ScoreRows* rows) {
  rows->logits.erase(0, rows->logits.size() / num_rows * count);
  const auto drop = [count](auto* each) {
    each->erase(each->begin(), each->begin() + std::min<size_t>(count, each->size()));
  };
  drop(&rows->logprobs);
  drop(&rows->tops);
}

}  // namespace

Scheduler::Sequence* Scheduler::SequenceOf(const Entry& entry) {
  const Group& group = GroupOf(entry.slot);
  Sequence* const sequence = group.slots[entry.slot - group.first_slot];
  return sequence != nullptr && sequence->start == entry.start ? sequence : nullptr;
}

absl::Status Scheduler::ApplyOutcome(std::span<StepOutcome> parts, absl::Time now,
                                     std::vector<RequestEvent>* events) {
  ESSOR_CHECK(!in_flight_.empty());
  const absl::Status fits = CheckOutcome(in_flight_.front(), parts);
  if (!fits.ok()) return fits;
  const InFlight step = std::move(in_flight_.front());
  in_flight_.erase(in_flight_.begin());
  step_time_.Observe(step.decode_rows, step.prefill_rows, now - std::max(step.planned, last_done_));
  last_done_ = now;
  for (StepOutcome& part : parts) {
    for (ScoreRows& rows : part.scores) {
      const Entry& entry = step.entries[entry_of_slot_[rows.slot]];
      Sequence* const sequence = SequenceOf(entry);
      if (sequence != nullptr) ApplyScores(sequence, entry, std::move(rows), now, events);
    }
  }
  for (StepOutcome& part : parts) {
    auto logprob = part.logprobs.begin();
    for (const SampledToken& sampled : part.sampled) {
      const Entry& entry = step.entries[entry_of_slot_[sampled.slot]];
      TokenLogprob* const its = entry.wants_logprob ? &*logprob++ : nullptr;
      Sequence* const sequence = SequenceOf(entry);
      if (sequence == nullptr) {
        ++discarded_tokens_;
      } else if (sampled.token == kNoToken || (its != nullptr && std::isnan(its->logprob))) {
        GroupOf(sequence->slot).kv.Hide(sequence->kv);
        EndRequest(sequence->request, NotFinite(), events);
      } else {
        ApplyToken(sequence, sampled.token, its, now, events);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckOutcome(const InFlight& step, std::span<const StepOutcome> parts) {
  size_t num_sampled = 0;
  size_t num_scored = 0;
  for (size_t i = 0; i < step.entries.size(); ++i) {
    entry_of_slot_[step.entries[i].slot] = static_cast<uint32_t>(i);
    num_sampled += step.entries[i].samples ? 1 : 0;
    num_scored += step.entries[i].scores ? 1 : 0;
  }
  // The entry of a slot that the step has, or kNoEntry.
  const auto entry_of = [&](uint32_t slot) {
    if (slot >= entry_of_slot_.size()) return kNoEntry;
    const uint32_t index = entry_of_slot_[slot];
    const bool in_step = index < step.entries.size() && step.entries[index].slot == slot;
    return in_step ? index : kNoEntry;
  };
  std::vector<bool> sampled(step.entries.size());
  std::vector<bool> scored(step.entries.size());
  for (const StepOutcome& part : parts) {
    size_t num_logprobs = 0;
    for (const SampledToken& token : part.sampled) {
      const uint32_t index = entry_of(token.slot);
      if (index == kNoEntry || !step.entries[index].samples || sampled[index]) {
        return absl::InternalError(
            absl::StrCat("a token for slot ", token.slot, ", which does not sample in the step"));
      }
      if (token.token >= model_.vocab_size && token.token != kNoToken) {
        return absl::InternalError(absl::StrCat("token ", token.token, " for slot ", token.slot,
                                                " is outside the vocabulary of ",
                                                model_.vocab_size));
      }
      sampled[index] = true;
      --num_sampled;
      num_logprobs += step.entries[index].wants_logprob ? 1 : 0;
    }
    if (num_logprobs != part.logprobs.size()) {
      return absl::InternalError(absl::StrCat(
          part.logprobs.size(), " log-probabilities of sampled tokens instead of ", num_logprobs));
    }
    for (const ScoreRows& rows : part.scores) {
      const uint32_t index = entry_of(rows.slot);
      if (index == kNoEntry || !step.entries[index].scores || scored[index]) {
        return absl::InternalError(
            absl::StrCat("scores for slot ", rows.slot, ", which is not scored in the step"));
      }
      scored[index] = true;
      --num_scored;
      const absl::Status status = CheckScores(step.entries[index], rows);
      if (!status.ok()) return status;
    }
  }
  if (num_sampled == 0 && num_scored == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("no token for ", num_sampled, " slots, no scores for ", num_scored));
}

absl::Status Scheduler::CheckScores(const Entry& entry, const ScoreRows& rows) const {
  if (rows.logprobs.size() != entry.num_targets) {
    return absl::InternalError(
        absl::StrCat("no ", entry.num_targets, " log-probabilities for slot ", entry.slot));
  }
  if (entry.score_top && rows.tops.size() != entry.num_targets) {
    return absl::InternalError(absl::StrCat(
        "no ", entry.num_targets, " lists of most probable tokens for slot ", entry.slot));
  }
  const size_t logits_bytes =
      entry.returns_logits ? static_cast<size_t>(entry.num_rows) * model_.vocab_size * sizeof(float)
                           : 0;
  if (rows.logits.size() == logits_bytes) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(rows.logits.size(), " bytes of logits for slot ",
                                          entry.slot, " instead of ", logits_bytes));
}

void Scheduler::ApplyToken(Sequence* sequence, TokenId token, TokenLogprob* logprob, absl::Time now,
                           std::vector<RequestEvent>* events) {
  Request* const request = sequence->request;
  const GenerateTask& task = *request->generate();
  if (!request->prompt_told) TellPrompt(request, events);
  ++generated_tokens_;
  --sequence->num_pending;
  if (sequence->num_generated() == 0) sequence->first_token = now;
  sequence->tokens.push_back(token);
  if ((sequence->tokens.size() - 1) % options_.block_tokens == 0) {  // a block was completed
    GroupOf(sequence->slot).kv.Publish(&sequence->kv, sequence->tokens);
  }

  TokenOutput output{.index = sequence->index, .token_ids = {token}};
  if (logprob != nullptr) output.logprobs.push_back(std::move(*logprob));
  const bool ends = (!task.ignore_eos && Contains(model_.eos_tokens, token)) ||
                    Contains(task.stop_token_ids, token);
  if (!ends) output.text = sequence->text->Push(token);  // an ending token is no text
  if (ends || sequence->text->stopped()) {
    output.finish_reason = FinishReason::kStop;
  } else if (sequence->num_generated() == task.max_new_tokens) {
    output.finish_reason = FinishReason::kLength;
  }
  if (output.finish_reason == FinishReason::kNone) return Tell(sequence, std::move(output), events);
  output.text += sequence->text->Finish();
  if (sequence->text->stopped()) output.finish_reason = FinishReason::kStop;
  output.usage = {.prompt_tokens = static_cast<uint32_t>(task.prompt->size()),
                  .generated_tokens = sequence->num_generated(),
                  .cached_tokens = request->cached_tokens};
  output.timing = {.queue = request->first_scheduled - request->accepted,
                   .first_token = sequence->first_token - request->accepted,
                   .total = now - request->accepted};
  Tell(sequence, std::move(output), events);
  FinishSequence(sequence, now, events);
}

void Scheduler::Tell(Sequence* sequence, TokenOutput output, std::vector<RequestEvent>* events) {
  Request* const request = sequence->request;
  if (!request->HoldsBack()) {
    events->push_back({.request = request->id, .tokens = std::move(output)});
    return;
  }
  auto held = std::find_if(request->held.begin(), request->held.end(),
                           [&](const Request::Held& one) { return one.index == output.index; });
  if (held == request->held.end()) {
    held = request->held.insert(held, Request::Held{.index = output.index});
  }
  held->logprob_sum += output.logprobs.front().logprob;
  TokenOutput& whole = held->output;
  whole.token_ids.push_back(output.token_ids.front());
  whole.text += output.text;
  if (request->generate()->sampling.logprobs.has_value()) {
    whole.logprobs.push_back(std::move(output.logprobs.front()));
  }
  whole.finish_reason = output.finish_reason;
  whole.usage = output.usage;
  whole.timing = output.timing;
}

// The continuations whose tokens are the most probable on average; of equal ones the first.
void Scheduler::TellBest(Request* request, std::vector<RequestEvent>* events) {
  const auto mean = [](const Request::Held& held) {
    return held.logprob_sum / static_cast<double>(held.output.token_ids.size());
  };
  std::sort(request->held.begin(), request->held.end(), [&](const auto& a, const auto& b) {
    return std::pair(-mean(a), a.index) < std::pair(-mean(b), b.index);
  });
  for (uint32_t i = 0; i < request->generate()->num_continuations; ++i) {
    TokenOutput output = std::move(request->held[i].output);
    output.index = i;
    events->push_back({.request = request->id, .tokens = std::move(output)});
  }
}

void Scheduler::TellPrompt(Request* request, std::vector<RequestEvent>* events) {
  request->prompt_told = true;
  const GenerateTask& task = *request->generate();
  if (!task.echo && !task.prompt_logprobs.has_value()) return;
  PromptOutput output{.token_ids = *task.prompt, .logprobs = std::move(request->prompt_logprobs)};
  if (task.echo && model_.tokenizer != nullptr) {
    // The ids are the vocabulary's, so there is no error to pass on.
    output.text = model_.tokenizer->Decode(*task.prompt, task.skip_special).value_or("");
  }
  events->push_back({.request = request->id, .prompt = std::move(output)});
}

void Scheduler::ApplyScores(Sequence* sequence, const Entry& entry, ScoreRows rows, absl::Time now,
                            std::vector<RequestEvent>* events) {
  Request* const request = sequence->request;
  const bool usable = std::none_of(rows.logprobs.begin(), rows.logprobs.end(),
                                   [](float logprob) { return std::isnan(logprob); });
  if (!usable) {
    GroupOf(sequence->slot).kv.Hide(sequence->kv);
    return EndRequest(request, NotFinite(), events);
  }
  if (request->generate() != nullptr) {
    for (size_t i = 0; i < rows.logprobs.size(); ++i) {
      TokenLogprob& logprob = request->prompt_logprobs.emplace_back();
      logprob.logprob = rows.logprobs[i];
      if (entry.score_top) logprob.top = std::move(rows.tops[i]);
    }
    return;
  }
  const auto length = static_cast<uint32_t>(request->Input(sequence->index).size());
  // Without logits the last position is covered although nothing had to be computed for it.
  const uint32_t end = entry.last_of_input ? length : entry.first_position + entry.num_rows;
  // What was told before the sequence was put back is computed again, and not told again.
  const uint32_t begin = std::clamp(sequence->scores_told, entry.first_position, end);
  if (begin == end) return;
  DropRows(begin - entry.first_position, entry.num_rows, &rows);
  sequence->scores_told = end;
  ScoreOutput output{.sequence_index = sequence->index,
                     .first_position = begin,
                     .num_positions = end - begin,
                     .logprobs = std::move(rows.logprobs),
                     .logits = std::move(rows.logits),
                     .tops = std::move(rows.tops)};
  events->push_back({.request = request->id, .scores = std::move(output)});
  if (entry.last_of_input) FinishSequence(sequence, now, events);
}

void Scheduler::FinishSequence(Sequence* sequence, absl::Time now,
                               std::vector<RequestEvent>* events) {
  Request* const request = sequence->request;
  GroupOf(sequence->slot).kv.Publish(&sequence->kv, sequence->tokens);
  EndSequence(sequence);  // destroys it
  if (++request->num_finished < request->num_sequences) return;
  if (last_completion_ != absl::InfinitePast()) {
    completion_interval_ = (completion_interval_ * 7 + (now - last_completion_)) / 8;
  }
  last_completion_ = now;
  if (request->HoldsBack()) TellBest(request, events);
  EndRequest(request, absl::OkStatus(), events);
}

}  // namespace essor::coordinator
