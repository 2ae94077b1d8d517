// A coordinator and its workers as child processes of this one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cluster/child_process.h"
#include "client/cluster/supervision.h"
#include "client/inference_client.h"

namespace essor::client {

// Legal order: Start, WaitReady, Supervise*, then WaitEnded after SignalCoordinator(SIGTERM) for a
// drain, or Stop at any time. Everything of it belongs to the thread that starts it.
class LocalCluster {
 public:
  struct Options {
    std::string bin_directory;  // of essor-coordinator and essor-worker
    uint32_t num_workers = 1;
    std::string listen_grpc = "127.0.0.1:0";
    std::string listen_http = "127.0.0.1:0";
    std::string listen_cluster = "127.0.0.1:0";
    std::vector<std::string> coordinator_flags;  // further ones, as they are
    std::vector<std::string> worker_flags;       // likewise
    std::string log_level = "error";
    bool log_json = false;
    uint64_t worker_memory_bytes = 0;  // 0 = most of what the host has free, divided evenly
  };

  // Starts the processes; returns once the coordinator listens. FailedPrecondition when it ends
  // before (its own message is on stderr by then), Cancelled when `stop` said so.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const Options& options,
                                                             const StopFn& stop);
  // Ends what still runs, as Stop().
  ~LocalCluster();

  const std::string& grpc_address() const { return grpc_address_; }
  const std::string& http_address() const { return http_address_; }
  const std::string& cluster_address() const { return cluster_address_; }
  InferenceClient& client() { return *client_; }

  // Waits until steps are served; `on_progress` gets one sentence whenever the state changes.
  // FailedPrecondition when a process gives up or the instance cannot be formed.
  absl::Status WaitReady(const std::function<void(const std::string&)>& on_progress,
                         const StopFn& stop);

  // One round of supervision: starts what has ended again, kills and replaces lost workers. Call
  // every half second. FailedPrecondition when a child has ended that never was of use.
  absl::Status Supervise();

  // Sends `signal` to the coordinator (SIGTERM: drain).
  void SignalCoordinator(int signal) { coordinator_.child->Signal(signal); }
  // Waits at most `timeout` for the coordinator to have ended; false when it still runs.
  bool WaitCoordinatorEnded(absl::Duration timeout);
  // Ends everything now: SIGTERM, a short grace, SIGKILL.
  void Stop();

 private:
  struct Supervised {
    std::string name;
    std::vector<std::string> argv;
    std::optional<ChildProcess> child;
    ChildHistory history;
    std::optional<absl::Time> restart_at;
  };

  explicit LocalCluster(const Options& options) : options_(options) {}
  absl::Status StartCoordinator(const StopFn& stop);
  absl::Status StartWorkers();
  absl::Status ReadPorts(const std::string& path);
  absl::Status SuperviseChildren();
  absl::Status SuperviseChild(Supervised& supervised, absl::Time now);
  void KillLostWorkers();
  void MarkReady();

  const Options options_;
  std::string grpc_address_;
  std::string http_address_;
  std::string cluster_address_;
  Supervised coordinator_;
  std::vector<Supervised> workers_;
  std::unique_ptr<InferenceClient> client_;
  LostWorkers lost_workers_;
};

}  // namespace essor::client
