#include "tests/simulation/simulated_workers.h"

#include <algorithm>
#include <set>
#include <utility>

#include "gtest/gtest.h"

namespace essor::coordinator {

Prefix Append(Prefix prefix, TokenId token) {
  uint64_t mixed = (prefix ^ (token + 1)) * 0x9e3779b97f4a7c15ull;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
  return mixed ^ (mixed >> 27);
}

TokenId SampleAfter(Prefix prefix, uint64_t seed, uint32_t vocab_size) {
  return static_cast<TokenId>(Append(prefix ^ seed, 7) % vocab_size);
}

SimulatedWorkers::SimulatedWorkers(const Scheduler::Options& options,
                                   const model::KvCapacity& capacity, uint32_t vocab_size)
    : options_(options), vocab_size_(vocab_size), groups_(options.num_groups) {
  for (Group& group : groups_) {
    group.blocks.assign(capacity.num_blocks, Block(options.block_tokens));
    group.windows.assign(capacity.num_window_blocks, Block(options.block_tokens));
    group.snapshots.resize(capacity.num_snapshots);
  }
}

StepOutcome SimulatedWorkers::Run(const Step& step) {
  for (const uint32_t slot : step.release_slots) EXPECT_EQ(slots_.erase(slot), 1u);
  for (const SlotStart& start : step.starts) Start(start);
  for (const BlockCopy& copy : step.copies) Copy(copy);
  StepOutcome outcome;
  std::vector<std::pair<uint32_t, uint32_t>> computed;  // slot, first new position
  for (const uint32_t slot : step.decode_slots) computed.emplace_back(slot, PositionOf(slot));
  for (const SequenceStep& entry : step.sequences) {
    computed.emplace_back(entry.slot, PositionOf(entry.slot));
  }
  for (const uint32_t slot : step.decode_slots) Compute({.slot = slot}, step, &outcome);
  for (const SequenceStep& entry : step.sequences) Compute(entry, step, &outcome);
  // A layer's rows are all written before any of them reads.
  for (const auto& [slot, first_new] : computed) {
    const auto found = slots_.find(slot);
    if (found != slots_.end()) CheckPast(found->second, GroupOf(slot), first_new);
  }
  // Saves come after all rows.
  std::set<std::pair<uint32_t, uint32_t>> saved;  // group, place
  for (const SequenceStep& entry : step.sequences) {
    if (!entry.save_snapshot.has_value()) continue;
    Group& group = GroupOf(entry.slot);
    EXPECT_LT(*entry.save_snapshot, group.snapshots.size());
    EXPECT_TRUE(saved.insert({entry.slot / options_.num_slots, *entry.save_snapshot}).second)
        << "two sequences save their states to one place";
    group.snapshots.at(*entry.save_snapshot) = slots_.at(entry.slot).state;
  }
  return outcome;
}

uint32_t SimulatedWorkers::PositionOf(uint32_t slot) const {
  const auto found = slots_.find(slot);
  return found == slots_.end() ? 0 : found->second.num_tokens;
}

void SimulatedWorkers::Start(const SlotStart& start) {
  Group& group = GroupOf(start.slot);
  Slot slot{.sampling = start.sampling, .num_tokens = start.context_tokens, .blocks = start.blocks};
  for (uint32_t i = 0; i < start.first_window_block; ++i) slot.window_blocks.emplace_back();
  for (const BlockId block : start.window_blocks) slot.window_blocks.emplace_back(block);
  EXPECT_EQ(options_.kinds.states && start.context_tokens > 0, start.restore_snapshot.has_value());
  if (start.restore_snapshot.has_value()) {
    ASSERT_LT(*start.restore_snapshot, group.snapshots.size());
    const std::optional<Prefix> state = group.snapshots[*start.restore_snapshot];
    ASSERT_TRUE(state.has_value()) << "an empty snapshot is restored";
    slot.state = *state;
  }
  if (start.sampling.NeedsTokens()) {
    EXPECT_EQ(start.seen_tokens.size(), start.context_tokens);
    slot.seen = start.seen_tokens;
  }
  EXPECT_TRUE(slots_.emplace(start.slot, std::move(slot)).second) << "a slot is taken twice";
}

void SimulatedWorkers::Copy(const BlockCopy& copy) {
  ASSERT_LT(copy.group, groups_.size());
  std::vector<Block>& blocks =
      copy.window ? groups_[copy.group].windows : groups_[copy.group].blocks;
  ASSERT_LT(copy.from.value(), blocks.size());
  ASSERT_LT(copy.to.value(), blocks.size());
  blocks[copy.to.value()] = blocks[copy.from.value()];
}

SimulatedWorkers::Place* SimulatedWorkers::PlaceOf(std::vector<Block>* blocks,
                                                   std::optional<BlockId> block,
                                                   uint32_t position) {
  if (!block.has_value() || block->value() >= blocks->size()) {
    ADD_FAILURE() << "position " << position << " has no block";
    return nullptr;
  }
  return &(*blocks)[block->value()][position % options_.block_tokens];
}

// Every position that a layer reads must hold this sequence's own past.
void SimulatedWorkers::CheckPast(const Slot& slot, const Group& group, uint32_t first_new) {
  const uint32_t block_tokens = options_.block_tokens;
  const auto check = [&](const Block& block, uint32_t position, const Place* before) {
    const Place& place = block[position % block_tokens];
    EXPECT_EQ(place.position, position) << "another position's KV is read";
    if (before != nullptr) {
      EXPECT_EQ(place.prefix, Append(before->prefix, place.token)) << "another past is read";
    }
    return &place;
  };
  const Place* before = nullptr;
  for (uint32_t p = 0; options_.kinds.full && p < slot.num_tokens; ++p) {
    before = check(group.blocks[slot.blocks[p / block_tokens].value()], p, before);
  }
  const uint32_t window = options_.kinds.window_tokens;
  if (window == 0) return;
  before = nullptr;
  const uint32_t first = first_new + 1 > window ? first_new + 1 - window : 0;
  for (uint32_t p = first; p < slot.num_tokens; ++p) {
    const std::optional<BlockId> block = slot.window_blocks[p / block_tokens];
    if (!block.has_value()) {
      ADD_FAILURE() << "position " << p << " is in sight and has no window block";
      return;
    }
    before = check(group.windows[block->value()], p, before);
  }
}

// The hash of the sequence so far, as each kind of memory has it.
Prefix SimulatedWorkers::PastOf(Slot* slot, Group* group) {
  if (slot->num_tokens == 0) return kEmptyPrefix;
  const uint32_t last = slot->num_tokens - 1;
  const uint32_t index = last / options_.block_tokens;
  std::optional<Prefix> past;
  const auto agree = [&](Prefix prefix) {
    EXPECT_EQ(past.value_or(prefix), prefix) << "two kinds of memory disagree";
    past = prefix;
  };
  if (options_.kinds.full) {
    agree(PlaceOf(&group->blocks, slot->blocks[index], last)->prefix);
  }
  if (options_.kinds.window_tokens > 0) {
    agree(PlaceOf(&group->windows, slot->window_blocks[index], last)->prefix);
  }
  if (options_.kinds.states) agree(slot->state);
  return *past;
}

void SimulatedWorkers::Write(Slot* slot, Group* group, TokenId token) {
  const uint32_t position = slot->num_tokens++;
  const uint32_t index = position / options_.block_tokens;
  slot->state = Append(slot->state, token);
  const Place written{.prefix = slot->state, .token = token, .position = position};
  if (options_.kinds.full) {
    ASSERT_LT(index, slot->blocks.size()) << "no block for position " << position;
    *PlaceOf(&group->blocks, slot->blocks[index], position) = written;
  }
  if (options_.kinds.window_tokens > 0) {
    ASSERT_LT(index, slot->window_blocks.size()) << "no window block for position " << position;
    Place* const place = PlaceOf(&group->windows, slot->window_blocks[index], position);
    if (place != nullptr) *place = written;
  }
}

void SimulatedWorkers::Compute(const SequenceStep& entry, const Step& step, StepOutcome* outcome) {
  const auto found = slots_.find(entry.slot);
  if (found == slots_.end()) {
    ADD_FAILURE() << "a step of the empty slot " << entry.slot;
    return;
  }
  Slot& slot = found->second;
  Group& group = GroupOf(entry.slot);
  slot.blocks.insert(slot.blocks.end(), entry.new_blocks.begin(), entry.new_blocks.end());
  slot.window_blocks.insert(slot.window_blocks.end(), entry.new_window_blocks.begin(),
                            entry.new_window_blocks.end());
  slot.state = PastOf(&slot, &group);
  std::vector<TokenId> tokens = entry.tokens;
  if (tokens.empty()) {
    if (!slot.last_token.has_value()) {
      ADD_FAILURE() << "slot " << entry.slot << " has sampled nothing to go on from";
      return;
    }
    EXPECT_TRUE(slot.sampled_by <= completed_ ||
                step.step_id.value() >= slot.sampled_by.value() + options_.num_stages)
        << "a step needs a token that has not come through the pipeline";
    tokens = {*slot.last_token};
  }
  for (const TokenId token : tokens) Write(&slot, &group, token);
  if (slot.sampling.NeedsTokens()) {
    slot.seen.insert(slot.seen.end(), tokens.begin(), tokens.end());
    Prefix all = kEmptyPrefix;
    for (const TokenId token : slot.seen) all = Append(all, token);
    EXPECT_EQ(all, slot.state) << "the tokens that penalties are made from are others";
  }
  if (!entry.hold) {
    const TokenId token = SampleAfter(slot.state, slot.sampling.seed, vocab_size_);
    outcome->sampled.push_back({entry.slot, token});
    slot.last_token = token;
    slot.sampled_by = step.step_id;
    if (slot.sampling.logprobs.has_value()) {
      const float logprob = -static_cast<float>(slot.state % 1000) / 100;
      outcome->logprobs.push_back({.logprob = logprob});
    }
  }
  if (!entry.score) return;
  ScoreRows scores{.slot = entry.slot};
  for (const TokenId target : entry.score_targets) {
    scores.logprobs.push_back(-static_cast<float>(target));
  }
  if (entry.score_top > 0) scores.tops.resize(entry.score_targets.size());
  if (entry.return_logits) scores.logits.assign(tokens.size() * vocab_size_ * sizeof(float), '\0');
  outcome->scores.push_back(std::move(scores));
}

}  // namespace essor::coordinator
