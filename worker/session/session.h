// The worker's side of essor.v1.Cluster.Join: dials the coordinator, obeys it, comes back when the
// stream is lost.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "worker/engine/local_ranks.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// What a probe may know of a session. Values are set by the session's threads and read by any.
struct SessionHealth {
  std::atomic<bool> joined{false};   // the stream to the coordinator stands
  std::atomic<bool> serving{false};  // ready for steps
  std::atomic<bool> leaving{false};
  std::atomic<uint64_t> epoch{0};
  std::atomic<uint64_t> steps_total{0};
  std::atomic<uint64_t> weight_bytes{0};
};

class Session {
 public:
  struct Options {
    std::string coordinator;  // host:port of its cluster port
    std::string build;
    std::string incarnation;
    std::string host;
    uint32_t num_devices = 1;
    uint64_t memory_bytes = 0;  // for all its ranks together
    uint32_t num_cpus = 1;
  };

  // `ranks` and `data_plane` are borrowed and must outlive the session.
  static std::unique_ptr<Session> Create(const Options& options, LocalRanks* ranks,
                                         DataPlane* data_plane);
  virtual ~Session() = default;

  // Serves until the coordinator says Shutdown or Stop() was called twice or takes effect (OK), or
  // until the coordinator refuses this worker for good (FailedPrecondition, InvalidArgument: its
  // message). A coordinator that is away is dialled again, for ever, with growing pauses.
  virtual absl::Status Run() = 0;
  // From any thread. The first call announces that the worker leaves: the coordinator lets running
  // requests finish and answers Shutdown; without a coordinator Run() returns at once. The second
  // call ends the stream and Run().
  virtual void Stop() = 0;
  virtual const SessionHealth& health() const = 0;
};

}  // namespace essor::worker
