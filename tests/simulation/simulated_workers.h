// Workers for simulations of the scheduler: they keep what real ones keep (slots, block tables,
// blocks, states, snapshots), compute nothing, and check everything.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/scheduler.h"
#include "coordinator/core/step.h"
#include "model/plan/kv_kinds.h"

namespace essor::coordinator {

// What stands for the KV of a position: a hash of all tokens up to it. So whoever reads a block
// that is not its own prefix's goes on from another hash, and samples other tokens.
using Prefix = uint64_t;
inline constexpr Prefix kEmptyPrefix = 0x243f6a8885a308d3ull;
Prefix Append(Prefix prefix, TokenId token);
// The token after `prefix`: a pure function, as with real sampling.
TokenId SampleAfter(Prefix prefix, uint64_t seed, uint32_t vocab_size);

// The instance's workers as one. Every contradiction with the protocol of cluster.proto, every read
// of a place that does not hold the sequence's own past, and tables too short are reported as
// test failures.
class SimulatedWorkers {
 public:
  SimulatedWorkers(const Scheduler::Options& options, const model::KvCapacity& capacity,
                   uint32_t vocab_size);

  // Steps in the order of their planning.
  StepOutcome Run(const Step& step);
  // The scheduler has the answer of this step, and so of all before.
  void Completed(StepId step) { completed_ = step; }
  // Slots in use.
  size_t num_slots() const { return slots_.size(); }

 private:
  struct Place {  // of one position
    Prefix prefix = 0;
    TokenId token = 0;
    uint32_t position = UINT32_MAX;
  };
  using Block = std::vector<Place>;
  struct Slot {
    SamplingSettings sampling{};
    uint32_t num_tokens = 0;
    std::vector<BlockId> blocks{};
    std::vector<std::optional<BlockId>> window_blocks{};
    Prefix state = kEmptyPrefix;
    std::optional<TokenId> last_token{};
    StepId sampled_by{};
    std::vector<TokenId> seen{};  // all tokens so far, if the sampling needs them
  };
  struct Group {
    std::vector<Block> blocks;
    std::vector<Block> windows;
    std::vector<std::optional<Prefix>> snapshots;
  };

  Group& GroupOf(uint32_t slot) { return groups_[slot / options_.num_slots]; }
  uint32_t PositionOf(uint32_t slot) const;
  void Start(const SlotStart& start);
  void Copy(const BlockCopy& copy);
  void Compute(const SequenceStep& entry, const Step& step, StepOutcome* outcome);
  Prefix PastOf(Slot* slot, Group* group);
  Place* PlaceOf(std::vector<Block>* blocks, std::optional<BlockId> block, uint32_t position);
  void CheckPast(const Slot& slot, const Group& group, uint32_t first_new);
  void Write(Slot* slot, Group* group, TokenId token);

  const Scheduler::Options options_;
  const uint32_t vocab_size_;
  std::vector<Group> groups_;
  std::map<uint32_t, Slot> slots_;
  StepId completed_{};
};

}  // namespace essor::coordinator
