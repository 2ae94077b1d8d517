// essor serve: a coordinator and its workers in the foreground.
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/cluster_flags.h"
#include "client/cli/command.h"
#include "client/cli/interrupt.h"
#include "client/cli/progress_line.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

constexpr absl::Duration kSuperviseInterval = absl::Milliseconds(500);
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
// After a second signal; with what LocalCluster::Stop allows it stays below the promised 10 s.
constexpr absl::Duration kHardEnd = absl::Seconds(6);

class ServeCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override;
  absl::Status CheckUsage() const override;
  absl::Status Run(const CommandContext& context) override;

 private:
  client::LocalCluster::Options ClusterOptions(const CommandContext& context) const;
  void PrintAddresses(const client::LocalCluster& cluster) const;
  absl::Status SuperviseUntilSignal(client::LocalCluster& cluster, const Interrupt& interrupt);
  void Drain(client::LocalCluster& cluster, const Interrupt& interrupt);

  LocalFlags local_;
  std::string listen_grpc_ = "127.0.0.1:50051";
  std::string listen_http_ = "127.0.0.1:8000";
  std::string listen_cluster_ = "127.0.0.1:50052";
  std::string served_model_name_;
  uint32_t max_queued_requests_ = 0;
  uint32_t max_running_requests_ = 0;
  bool log_json_ = false;
  std::string log_level_ = "info";
};

void ServeCommand::AddFlags(CLI::App& app) {
  app.add_option("--model,model", local_.model, "Model directory or .gguf file")
      ->capture_default_str();
  AddLocalFlags(app, local_);
  app.add_option("--listen-grpc", listen_grpc_, "Address of the gRPC API; port 0 chooses one")
      ->capture_default_str();
  app.add_option("--listen-http", listen_http_,
                 "Address of the OpenAI API, health and metrics; port 0 chooses one")
      ->capture_default_str();
  app.add_option("--listen-cluster", listen_cluster_,
                 "Address that workers dial; port 0 chooses one")
      ->capture_default_str();
  app.add_option("--served-model-name", served_model_name_,
                 "Name of the model in the APIs; without: the directory's name")
      ->capture_default_str();
  app.add_option("--max-queued-requests", max_queued_requests_,
                 "Requests that may wait; more are refused; 0 = the coordinator's default")
      ->capture_default_str();
  app.add_option("--max-running-requests", max_running_requests_,
                 "Sequences that are extended side by side; 0 = the coordinator's default")
      ->capture_default_str();
  app.add_flag("--log-json", log_json_, "Log JSON objects, one a line");
  app.add_option("--log-level", log_level_, "trace, debug, info, warn or error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}))
      ->capture_default_str();
}

absl::Status ServeCommand::CheckUsage() const {
  if (local_.model.empty()) return absl::InvalidArgumentError("say which model: --model MODEL");
  for (const std::string& address : {listen_grpc_, listen_http_, listen_cluster_}) {
    ESSOR_RETURN_IF_ERROR(ParseHostPort(address).status());
  }
  return CheckLocalFlags(local_);
}

client::LocalCluster::Options ServeCommand::ClusterOptions(const CommandContext& context) const {
  client::LocalCluster::Options options = ToClusterOptions(local_, context);
  options.listen_grpc = listen_grpc_;
  options.listen_http = listen_http_;
  options.listen_cluster = listen_cluster_;
  options.log_level = log_level_;
  options.log_json = log_json_;
  std::vector<std::string>& flags = options.coordinator_flags;
  if (!served_model_name_.empty()) flags.push_back("--served-model-name=" + served_model_name_);
  const auto add = [&](const char* flag, uint32_t value) {
    if (value > 0) flags.push_back(absl::StrCat(flag, value));
  };
  add("--max-queued-requests=", max_queued_requests_);
  add("--max-running-requests=", max_running_requests_);
  return options;
}

absl::Status ServeCommand::Run(const CommandContext& context) {
  InitLogging({.process = "essor", .json = log_json_, .level = log_level_});
  const Interrupt interrupt;
  const auto stop = [&] { return interrupt.count() > 0; };
  auto started = client::LocalCluster::Start(ClusterOptions(context), stop);
  if (absl::IsCancelled(started.status())) return absl::OkStatus();
  ESSOR_RETURN_IF_ERROR(started.status());
  client::LocalCluster& cluster = **started;
  {
    ProgressLine progress("essor serve");
    const absl::Status ready = cluster.WaitReady(
        [&](const std::string& detail) { progress.Show(detail, absl::Now()); }, stop);
    if (!ready.ok() && !absl::IsCancelled(ready)) return ready;
  }
  if (!stop()) {
    PrintAddresses(cluster);
    ESSOR_RETURN_IF_ERROR(SuperviseUntilSignal(cluster, interrupt));
  }
  Drain(cluster, interrupt);
  return absl::OkStatus();
}

void ServeCommand::PrintAddresses(const client::LocalCluster& cluster) const {
  std::printf("ready grpc=%s http=%s cluster=%s\n", cluster.grpc_address().c_str(),
              cluster.http_address().c_str(), cluster.cluster_address().c_str());
  std::fflush(stdout);
}

absl::Status ServeCommand::SuperviseUntilSignal(client::LocalCluster& cluster,
                                                const Interrupt& interrupt) {
  absl::Time next = absl::Now();
  while (interrupt.count() == 0) {
    if (absl::Now() >= next) {
      ESSOR_RETURN_IF_ERROR(cluster.Supervise());
      next = absl::Now() + kSuperviseInterval;
    }
    absl::SleepFor(kPollInterval);
  }
  return absl::OkStatus();
}

// The coordinator lets running requests finish and ends; a second signal makes it give them up.
void ServeCommand::Drain(client::LocalCluster& cluster, const Interrupt& interrupt) {
  spdlog::info("draining: no new requests, running ones finish; a second signal ends them");
  cluster.SignalCoordinator(SIGTERM);
  while (!cluster.WaitCoordinatorEnded(kPollInterval)) {
    if (interrupt.count() < 2) continue;
    spdlog::info("ending the running requests");
    cluster.SignalCoordinator(SIGTERM);
    cluster.WaitCoordinatorEnded(kHardEnd);
    break;
  }
  cluster.Stop();
  spdlog::info("stopped");
}

}  // namespace

std::unique_ptr<Command> MakeServeCommand() { return std::make_unique<ServeCommand>(); }

}  // namespace essor::cli
