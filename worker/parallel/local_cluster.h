// For tests and benchmarks: ranks as threads of one process, over data planes that may pretend to
// be different hosts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// One data plane of a LocalCluster.
struct PlaneSpec {
  uint32_t num_ranks = 1;
  bool allow_shared_memory = true;
};

class LocalCluster {
 public:
  // Ranks are numbered over the planes in order.
  explicit LocalCluster(const std::vector<PlaneSpec>& planes) {
    for (const PlaneSpec& spec : planes) {
      auto plane = DataPlane::Create({.allow_shared_memory = spec.allow_shared_memory});
      if (!plane.ok()) {
        create_status_ = plane.status();
        return;
      }
      for (uint32_t i = 0; i < spec.num_ranks; ++i) {
        members_.ranks.push_back(
            {.worker_id = planes_.size() + 1, .endpoint = (*plane)->endpoint()});
        plane_of_rank_.push_back(planes_.size());
      }
      planes_.push_back(*std::move(plane));
    }
  }

  const absl::Status& create_status() const { return create_status_; }
  uint32_t num_ranks() const { return static_cast<uint32_t>(members_.ranks.size()); }
  DataPlane& plane(uint32_t rank) { return *planes_[plane_of_rank_[rank]]; }
  EpochMembers members(uint64_t epoch) const {
    EpochMembers members = members_;
    members.epoch = epoch;
    return members;
  }

  std::vector<uint32_t> AllRanks() const {
    std::vector<uint32_t> ranks;
    for (uint32_t rank = 0; rank < num_ranks(); ++rank) ranks.push_back(rank);
    return ranks;
  }

  using Communicators = std::vector<std::unique_ptr<Communicator>>;
  absl::StatusOr<Communicators> Connect(uint64_t epoch, uint32_t rank,
                                        const std::vector<GroupSpec>& groups,
                                        uint64_t max_payload_bytes, absl::Duration timeout) {
    return plane(rank).Connect(members(epoch), rank, groups, max_payload_bytes,
                               Clock::Steady().Now() + timeout);
  }

  // Runs `body` on a thread per rank; the first error by rank.
  absl::Status OnEveryRank(const std::function<absl::Status(uint32_t rank)>& body) {
    std::vector<absl::Status> statuses(num_ranks());
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < num_ranks(); ++rank) {
      threads.emplace_back([&, rank] { statuses[rank] = body(rank); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& status : statuses) {
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // The same, with a communicator over all ranks.
  absl::Status OnOneGroup(
      uint64_t epoch, uint64_t max_payload_bytes,
      const std::function<absl::Status(uint32_t rank, Communicator& group)>& body) {
    return OnEveryRank([&](uint32_t rank) -> absl::Status {
      absl::StatusOr<Communicators> groups =
          Connect(epoch, rank, {{"all", AllRanks()}}, max_payload_bytes, absl::Seconds(20));
      if (!groups.ok()) return groups.status();
      groups->front()->SetDeadline(Clock::Steady().Now() + absl::Seconds(60));
      return body(rank, *groups->front());
    });
  }

 private:
  absl::Status create_status_;
  std::vector<std::unique_ptr<DataPlane>> planes_;
  std::vector<size_t> plane_of_rank_;
  EpochMembers members_;
};

}  // namespace essor::worker
