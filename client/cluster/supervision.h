// What the supervisor of a local cluster decides, as pure functions over what it has seen.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "absl/time/time.h"

namespace essor::client {

// When a child that ended is to be started again. Restarts within the last minute double the pause,
// from 0.1 to 5 s. nullopt: give up. A child that has never been of use would fail again when it
// ended by itself; one that somebody killed gets kEarlyRestartsMax more chances.
inline constexpr int kEarlyRestartsMax = 3;
struct ChildHistory {
  bool was_ready = false;            // the cluster was ready at least once with this child
  bool killed = false;               // ended by a signal this time
  std::vector<absl::Time> restarts;  // past ones
};
std::optional<absl::Time> RestartTime(const ChildHistory& history, absl::Time now);

// Finds workers that the coordinator has given up although their process lives (stopped, hung).
// Feed it every answer of GetCluster; a worker is lost when it was listed before by the same
// coordinator and is missing in kMissesMax answers in a row.
class LostWorkers {
 public:
  static constexpr int kMissesMax = 2;
  // `coordinator`: pid of the coordinator that answered; `listed`: pids of its workers; `running`:
  // pids of our worker processes. Returns those to be killed.
  std::vector<pid_t> Update(pid_t coordinator, const std::set<pid_t>& listed,
                            const std::set<pid_t>& running);

 private:
  pid_t coordinator_ = -1;
  std::map<pid_t, int> misses_;  // of workers listed at least once
};

}  // namespace essor::client
