// Where a command finds its model: a running cluster, or a private one of child processes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "client/cli/command.h"
#include "client/cluster/local_cluster.h"
#include "client/inference_client.h"

namespace essor::cli {

// A model and how local processes hold it.
struct LocalFlags {
  std::string model{};
  uint32_t workers = 0;  // 0 = one for each rank of the plan, 1 without a plan
  std::string plan{};    // empty = the planner's
  uint32_t threads = 0;
  std::string device = "auto";
  uint64_t device_memory = 0;
  std::string dtype = "auto";
  std::string kv_dtype = "auto";
  std::string draft_layers = "skip";
  uint32_t max_context = 0;
  uint32_t max_step_tokens = 0;
  std::string prefix_cache = "all";
  std::optional<uint32_t> reserve_new_tokens{};
  uint32_t target_step_ms = 0;
  std::vector<std::string> tenant_weights{};  // NAME=WEIGHT
};

// All but --model.
void AddLocalFlags(CLI::App& app, LocalFlags& flags);
// InvalidArgument for a plan that is not in the grammar, or tenant weights that are none.
absl::Status CheckLocalFlags(const LocalFlags& flags);
// What LocalCluster has to know of them.
client::LocalCluster::Options ToClusterOptions(const LocalFlags& flags,
                                               const CommandContext& context);

// For commands that ask a cluster: exactly one of --model and --server.
struct ClusterFlags {
  std::string server;
  LocalFlags local;
};
void AddClusterFlags(CLI::App& app, ClusterFlags& flags);
absl::Status CheckClusterFlags(const ClusterFlags& flags);

// An open way to a cluster. A private one ends with the object, which belongs to the thread that
// opened it.
class ClusterConnection {
 public:
  // `max_requests`: how many requests will be sent at once. `command` names the command in the
  // progress shown. FailedPrecondition when a private cluster cannot be formed, Unavailable when
  // nobody answers at --server, Cancelled when `stop` said so.
  static absl::StatusOr<std::unique_ptr<ClusterConnection>> Open(const ClusterFlags& flags,
                                                                 const CommandContext& context,
                                                                 const std::string& command,
                                                                 size_t max_requests,
                                                                 const client::StopFn& stop);
  client::InferenceClient& client() { return cluster_ ? cluster_->client() : *client_; }

 private:
  std::unique_ptr<client::LocalCluster> cluster_;  // null with --server
  std::unique_ptr<client::InferenceClient> client_;
};

}  // namespace essor::cli
