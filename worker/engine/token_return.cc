#include "worker/engine/token_return.h"

#include <algorithm>
#include <span>
#include <utility>

#include "common/status_macros.h"

namespace essor::worker {
namespace {

uint64_t BufferedBytes(size_t num_tokens) {
  return num_tokens * sizeof(TokenId) + Communicator::kBufferedBytesPerSend;
}

}  // namespace

std::vector<uint32_t> SampledSlots(const StepInput& input) {
  std::vector<uint32_t> slots;
  for (const StepInput::Sequence& sequence : input.sequences) {
    if (sequence.sample) slots.push_back(sequence.slot);
  }
  return slots;
}

TokenReturn::TokenReturn(Communicator* pipeline, uint32_t from, uint32_t num_slots)
    : pipeline_(pipeline), from_(from), started_(num_slots, 0), sampled_(num_slots, 0) {}

absl::Status TokenReturn::TakeFor(const StepInput& input, SequenceSlots* slots) {
  ++step_;
  for (const StepInput::Start& start : input.starts) {
    if (start.slot >= started_.size()) continue;  // Apply() says so
    started_[start.slot] = step_;
    sampled_[start.slot] = 0;
  }
  uint64_t needed = 0;
  for (const StepInput::Sequence& sequence : input.sequences) {
    if (!sequence.tokens.empty() || sequence.slot >= sampled_.size()) continue;
    needed = std::max(needed, sampled_[sequence.slot]);
  }
  while (!expected_.empty() && expected_.front().step <= needed) {
    ESSOR_RETURN_IF_ERROR(TakeOldest(slots));
  }
  return absl::OkStatus();
}

absl::Status TokenReturn::Expect(const StepInput& input, SequenceSlots* slots) {
  std::vector<uint32_t> sampled = SampledSlots(input);
  if (sampled.empty()) return absl::OkStatus();
  for (const uint32_t slot : sampled) sampled_[slot] = step_;
  expected_bytes_ += BufferedBytes(sampled.size());
  expected_.push_back({.step = step_, .slots = std::move(sampled)});
  while (expected_bytes_ > Communicator::kBufferedSendBytes) {
    ESSOR_RETURN_IF_ERROR(TakeOldest(slots));
  }
  return absl::OkStatus();
}

absl::Status TokenReturn::TakeOldest(SequenceSlots* slots) {
  const Expected oldest = std::move(expected_.front());
  expected_.pop_front();
  expected_bytes_ -= BufferedBytes(oldest.slots.size());
  std::vector<TokenId> tokens(oldest.slots.size());
  ESSOR_RETURN_IF_ERROR(pipeline_->Receive(std::as_writable_bytes(std::span(tokens)), from_));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint32_t slot = oldest.slots[i];
    if (oldest.step < started_[slot]) continue;
    slots->SetLastToken(slot, tokens[i]);
  }
  return absl::OkStatus();
}

}  // namespace essor::worker
