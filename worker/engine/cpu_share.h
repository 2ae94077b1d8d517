// How the workers of one host divide its cores.
#pragma once

#include <cstdint>
#include <vector>

namespace essor::worker {

struct CpuShareRequest {
  std::vector<int> cpus;        // that this process may run on, ascending
  uint32_t threads_wanted = 0;  // of the whole worker; 0 = its share
  uint32_t local_index = 0;     // this worker among local_count on the host
  uint32_t local_count = 1;
  uint32_t num_ranks = 1;  // of this worker
};

// Threads of one rank, and the cpus to pin them to (empty: do not pin).
struct CpuShare {
  uint32_t num_threads = 1;
  std::vector<int> cpus;
};

// One entry per rank. Ranks get disjoint cores as long as all workers' threads fit the cores,
// assuming that all workers ask for the same; otherwise nobody is pinned and the kernel schedules.
std::vector<CpuShare> DivideCpus(const CpuShareRequest& request);

// The cpus this process may run on (sched_getaffinity).
std::vector<int> AllowedCpus();

}  // namespace essor::worker
