#include "coordinator/core/placement.h"

namespace essor::coordinator {

std::optional<uint32_t> ChooseGroup(std::span<const GroupLoad> groups, uint32_t prompt_tokens) {
  std::optional<uint32_t> best;
  uint64_t least = 0;
  for (uint32_t i = 0; i < groups.size(); ++i) {
    const GroupLoad& group = groups[i];
    if (!group.has_slot) continue;
    const uint64_t work = group.waiting_tokens + prompt_tokens - group.cached_tokens +
                          kTokensPerRunning * group.num_running;
    if (best.has_value() && work >= least) continue;
    best = i;
    least = work;
  }
  return best;
}

}  // namespace essor::coordinator
