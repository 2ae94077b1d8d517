#include "client/cluster/supervision.h"

#include <algorithm>

namespace essor::client {
namespace {

constexpr absl::Duration kRestartPauseMin = absl::Milliseconds(100);
constexpr absl::Duration kRestartPauseMax = absl::Seconds(5);
constexpr absl::Duration kRecent = absl::Minutes(1);

}  // namespace

std::optional<absl::Time> RestartTime(const ChildHistory& history, absl::Time now) {
  if (!history.was_ready &&
      (!history.killed || history.restarts.size() >= static_cast<size_t>(kEarlyRestartsMax))) {
    return std::nullopt;
  }
  const auto recent = std::count_if(history.restarts.begin(), history.restarts.end(),
                                    [&](absl::Time restart) { return now - restart < kRecent; });
  absl::Duration pause = kRestartPauseMin;
  for (int64_t i = 0; i < recent && pause < kRestartPauseMax; ++i) pause *= 2;
  return now + std::min(pause, kRestartPauseMax);
}

std::vector<pid_t> LostWorkers::Update(pid_t coordinator, const std::set<pid_t>& listed,
                                       const std::set<pid_t>& running) {
  if (coordinator != coordinator_) {
    coordinator_ = coordinator;
    misses_.clear();
  }
  for (const pid_t pid : listed) misses_[pid] = -1;
  std::vector<pid_t> lost;
  for (auto it = misses_.begin(); it != misses_.end();) {
    if (!running.contains(it->first)) {
      it = misses_.erase(it);
      continue;
    }
    if (++it->second >= kMissesMax) lost.push_back(it->first);
    ++it;
  }
  return lost;
}

}  // namespace essor::client
