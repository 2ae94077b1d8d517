// A step cut along data-parallel groups, and the groups' answers put together again. Slots are
// numbered over all groups, group g has those from g * slots_per_group on; the engine knows the
// slots of its own group only, from 0 on.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/step.h"

namespace essor::worker {

struct StepGroups {
  uint32_t num_groups = 1;
  uint32_t slots_per_group = 0;
  uint32_t max_step_tokens = 0;  // of one group
};

// Rows of each group in the step. InvalidArgument for a slot or a group that is not one of
// `groups`, wherever the step names it, and for more rows than a group may have: every rank refuses
// such a step, whichever group it is of.
absl::StatusOr<std::vector<uint32_t>> RowsOfGroups(const StepInput& step, const StepGroups& groups);

// What the step says to `group`, in its order, with the group's own slot numbers.
StepInput StepOfGroup(const StepInput& step, const StepGroups& groups, uint32_t group);
// Adds `first_slot` to the output's slot numbers.
void RenumberSlots(uint32_t first_slot, StepOutput* output);

// Which slots' sequences ask for log-probabilities; hears of every step, in order.
class LogprobSlots {
 public:
  // `num_slots`: of all groups.
  explicit LogprobSlots(size_t num_slots = 0) : asks_(num_slots) {}
  // For each of step.sequences.
  std::vector<bool> Of(const StepInput& step);

 private:
  std::vector<bool> asks_;  // by slot
};

// The outputs of ranks that answer for different sequences of a step, each in the step's order, as
// one in that order; the step id is the step's and the time the longest.
StepOutput MergeOutputs(const StepInput& step, const std::vector<bool>& with_logprobs,
                        std::vector<StepOutput> outputs);

}  // namespace essor::worker
