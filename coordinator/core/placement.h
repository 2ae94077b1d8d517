// Which data-parallel group a new sequence goes to.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace essor::coordinator {

struct GroupLoad {
  bool has_slot = false;
  uint32_t num_running = 0;     // sequences
  uint64_t waiting_tokens = 0;  // of prompts that its sequences have still to compute
  uint32_t cached_tokens = 0;   // of the new sequence's prompt
};

// The group that begins to answer soonest: the least work before the first token, which is what its
// running prompts still need and what is not cached of this one. Every running sequence counts as
// `kTokensPerRunning` of it, because it takes a row of each step; of equal groups the first.
// Nullopt when none has a slot.
inline constexpr uint64_t kTokensPerRunning = 16;
std::optional<uint32_t> ChooseGroup(std::span<const GroupLoad> groups, uint32_t prompt_tokens);

}  // namespace essor::coordinator
