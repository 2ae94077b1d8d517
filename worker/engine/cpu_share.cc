#include "worker/engine/cpu_share.h"

#include <sched.h>

#include <algorithm>

namespace essor::worker {

std::vector<CpuShare> DivideCpus(const CpuShareRequest& request) {
  const auto num_cpus = static_cast<uint32_t>(std::max<size_t>(request.cpus.size(), 1));
  const uint32_t share = std::max(num_cpus / std::max(request.local_count, 1u), 1u);
  const uint32_t threads = request.threads_wanted > 0 ? request.threads_wanted : share;
  const uint32_t per_rank = std::max(threads / std::max(request.num_ranks, 1u), 1u);
  const uint32_t per_worker = per_rank * request.num_ranks;
  const bool pin = !request.cpus.empty() && per_worker * request.local_count <= num_cpus;

  std::vector<CpuShare> shares(request.num_ranks);
  for (uint32_t rank = 0; rank < request.num_ranks; ++rank) {
    shares[rank].num_threads = per_rank;
    if (!pin) continue;
    const auto first = request.cpus.begin() + request.local_index * per_worker + rank * per_rank;
    shares[rank].cpus.assign(first, first + per_rank);
  }
  return shares;
}

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace essor::worker
