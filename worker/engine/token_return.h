// The way of sampled tokens from the last stage of a pipeline back to the first one, whose next
// inputs they are. The first stage does not wait for them at the end of a step but when a later
// step goes on from one of them, so that it can run steps of other sequences meanwhile.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "worker/engine/sequence_slots.h"
#include "worker/engine/step.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// The slots of the sequences that sample in a step, in its order.
std::vector<uint32_t> SampledSlots(const StepInput& input);

// The end of the way, on a rank of the first stage. Owned and called by its engine thread. Errors
// are those of the exchange.
//
// Tokens that wait to be taken are at most what the communicator buffers
// (Communicator::kBufferedSendBytes): beyond that they are taken early. So a last stage that sends
// them, one message for each step that samples, never waits for what the first stage does next.
class TokenReturn {
 public:
  // `pipeline` is borrowed; its member `from` is the last stage.
  TokenReturn(Communicator* pipeline, uint32_t from, uint32_t num_slots);

  // Before SequenceSlots::Apply(input), in every step: takes what `input` goes on from, in the
  // order of the steps. Tokens of a sequence that has left its slot are dropped.
  absl::Status TakeFor(const StepInput& input, SequenceSlots* slots);
  // After the rows of `input` were sent on: its tokens will come.
  absl::Status Expect(const StepInput& input, SequenceSlots* slots);

 private:
  struct Expected {
    uint64_t step = 0;  // as counted by TakeFor, from 1
    std::vector<uint32_t> slots;
  };

  absl::Status TakeOldest(SequenceSlots* slots);

  Communicator* const pipeline_;
  const uint32_t from_;
  uint64_t step_ = 0;
  std::deque<Expected> expected_;
  uint64_t expected_bytes_ = 0;    // as the communicator counts them
  std::vector<uint64_t> started_;  // by slot: the step in which its sequence started
  std::vector<uint64_t> sampled_;  // by slot: the last expected step that samples for it; 0 = none
};

}  // namespace essor::worker
