#include "client/cli/cluster_flags.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/progress_line.h"
#include "common/host_port.h"
#include "common/status_macros.h"
#include "common/tenant_weight.h"
#include "model/plan/parallel_plan.h"

namespace essor::cli {
namespace {

constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);
constexpr uint32_t kWorkersMax = 256;     // processes of one machine
constexpr uint32_t kWorkerDevices = 8;    // a worker's own default of --devices
constexpr size_t kQueuedRequests = 1024;  // more than a command sends as a rule

uint32_t RanksOf(const std::string& plan) {
  const auto parsed = model::ParallelPlan::Parse(plan);
  return parsed.ok() ? parsed->NumRanks() : 1;
}

// As the coordinator has them; docs/scheduling.md.
void AddSchedulingFlags(CLI::App& app, LocalFlags& flags) {
  app.add_option("--prefix-cache", flags.prefix_cache,
                 "Who may find the prompts of others in the KV cache: all, those of one tenant, or "
                 "nobody (off)")
      ->check(CLI::IsMember({"all", "tenant", "off"}))
      ->capture_default_str();
  app.add_option("--reserve-new-tokens", flags.reserve_new_tokens,
                 "New tokens that KV blocks are promised for when a request begins")
      ->default_str("the coordinator's default");
  app.add_option("--target-step-ms", flags.target_step_ms,
                 "Milliseconds that a step may take; prompts are cut to fit. 0 = twice what it "
                 "takes without")
      ->capture_default_str();
  app.add_option("--tenant-weight", flags.tenant_weights,
                 "NAME=WEIGHT, a tenant's share against the others' 1, from 0.001 to 1000; several "
                 "with commas or flags of their own")
      ->allow_extra_args(false)
      ->delimiter(',');
}

}  // namespace

void AddLocalFlags(CLI::App& app, LocalFlags& flags) {
  app.add_option("--workers", flags.workers,
                 "Worker processes; 0 = one for each rank of --plan, or 1")
      ->check(CLI::Range(0U, kWorkersMax))
      ->capture_default_str();
  app.add_option("--plan", flags.plan,
                 "How ranks divide the model: pp=P,dp=D,tp=T,ep=E; without: chosen for the workers")
      ->capture_default_str();
  app.add_option("--threads", flags.threads,
                 "CPU threads of each worker; 0 = its share of the host's cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--device", flags.device, "What holds the ranks: auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--device-memory", flags.device_memory,
                 "Memory of each worker that the plan may use, e.g. 8GB; 0 = its share of what the "
                 "host has free")
      ->transform(CLI::AsSizeValue(true))
      ->capture_default_str();
  app.add_option("--dtype", flags.dtype, "How weights are computed with: auto, bfloat16, float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32"}))
      ->capture_default_str();
  app.add_option("--kv-dtype", flags.kv_dtype,
                 "How keys and values are stored: auto (float32 on CPUs), float32, bfloat16, or in "
                 "a byte each fp8, int8")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "fp8", "int8"}))
      ->capture_default_str();
  app.add_option("--draft-layers", flags.draft_layers,
                 "Layers that guess tokens ahead (MTP): skip, or load to hold them")
      ->check(CLI::IsMember({"skip", "load"}))
      ->capture_default_str();
  app.add_option("--max-context", flags.max_context,
                 "Most tokens of one sequence; 0 = the model's own limit")
      ->capture_default_str();
  app.add_option("--max-step-tokens", flags.max_step_tokens,
                 "Token budget of one step; 0 = the coordinator's default")
      ->capture_default_str();
  AddSchedulingFlags(app, flags);
}

absl::Status CheckLocalFlags(const LocalFlags& flags) {
  ESSOR_RETURN_IF_ERROR(ParseTenantWeights(flags.tenant_weights).status());
  if (flags.plan.empty()) return absl::OkStatus();
  return model::ParallelPlan::Parse(flags.plan).status();
}

client::LocalCluster::Options ToClusterOptions(const LocalFlags& flags,
                                               const CommandContext& context) {
  const uint32_t ranks = flags.plan.empty() ? 1 : RanksOf(flags.plan);
  const uint32_t workers = flags.workers > 0 ? flags.workers : ranks;
  client::LocalCluster::Options options;
  options.bin_directory = context.bin_directory;
  options.num_workers = workers;
  options.worker_memory_bytes = flags.device_memory;
  options.worker_flags = {
      "--device=" + flags.device, absl::StrCat("--threads=", flags.threads),
      absl::StrCat("--devices=", std::max(kWorkerDevices, (ranks + workers - 1) / workers))};
  options.coordinator_flags = {
      "--model=" + flags.model, "--dtype=" + flags.dtype, "--kv-dtype=" + flags.kv_dtype,
      "--draft-layers=" + flags.draft_layers, "--prefix-cache=" + flags.prefix_cache};
  const auto add = [&](const char* flag, uint32_t value) {
    if (value > 0) options.coordinator_flags.push_back(absl::StrCat(flag, value));
  };
  if (!flags.plan.empty()) options.coordinator_flags.push_back("--plan=" + flags.plan);
  add("--max-context=", flags.max_context);
  add("--max-step-tokens=", flags.max_step_tokens);
  add("--target-step-ms=", flags.target_step_ms);
  if (flags.reserve_new_tokens.has_value()) {  // 0 is a choice
    options.coordinator_flags.push_back(
        absl::StrCat("--reserve-new-tokens=", *flags.reserve_new_tokens));
  }
  for (const std::string& weight : flags.tenant_weights) {
    options.coordinator_flags.push_back("--tenant-weight=" + weight);
  }
  return options;
}

void AddClusterFlags(CLI::App& app, ClusterFlags& flags) {
  app.add_option("--model", flags.local.model,
                 "Model directory or .gguf file: served by processes of this command alone")
      ->capture_default_str();
  app.add_option("--server", flags.server, "gRPC port of a running cluster, host:port")
      ->capture_default_str();
  AddLocalFlags(app, flags.local);
}

absl::Status CheckClusterFlags(const ClusterFlags& flags) {
  if (flags.server.empty() == flags.local.model.empty()) {
    return absl::InvalidArgumentError("say either --model MODEL or --server HOST:PORT");
  }
  if (!flags.server.empty()) ESSOR_RETURN_IF_ERROR(ParseHostPort(flags.server).status());
  return CheckLocalFlags(flags.local);
}

absl::StatusOr<std::unique_ptr<ClusterConnection>> ClusterConnection::Open(
    const ClusterFlags& flags, const CommandContext& context, const std::string& command,
    size_t max_requests, const client::StopFn& stop) {
  auto connection = std::make_unique<ClusterConnection>();
  if (!flags.server.empty()) {
    connection->client_ = client::InferenceClient::Connect(flags.server);
    // A wrong address is said before any request is made.
    ESSOR_RETURN_IF_ERROR(connection->client_->GetModel(kAnswerTimeout).status());
    return connection;
  }
  ProgressLine progress("essor " + command);
  client::LocalCluster::Options options = ToClusterOptions(flags.local, context);
  options.coordinator_flags.push_back(
      absl::StrCat("--max-queued-requests=", std::max(kQueuedRequests, max_requests)));
  progress.Show("starting the coordinator", absl::Now());
  ESSOR_ASSIGN_OR_RETURN(connection->cluster_, client::LocalCluster::Start(options, stop));
  ESSOR_RETURN_IF_ERROR(connection->cluster_->WaitReady(
      [&](const std::string& detail) { progress.Show(detail, absl::Now()); }, stop));
  return connection;
}

}  // namespace essor::cli
