// essor status: what a running cluster does.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/status_text.h"
#include "client/inference_client.h"
#include "common/host_port.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

constexpr absl::Duration kAnswerTimeout = absl::Seconds(10);

class StatusCommand : public Command {
 public:
  void AddFlags(CLI::App& app) override {
    app.add_option("--server", server_, "gRPC port of the cluster, host:port")
        ->capture_default_str();
    app.add_flag("--json", json_, "Print JSON");
  }

  absl::Status CheckUsage() const override { return ParseHostPort(server_).status(); }

  absl::Status Run(const CommandContext&) override {
    const auto client = client::InferenceClient::Connect(server_);
    ESSOR_ASSIGN_OR_RETURN(const v1::GetClusterResponse cluster,
                           client->GetCluster(kAnswerTimeout));
    const std::string text = json_ ? ClusterJson(cluster) + "\n" : ClusterTable(cluster);
    std::fwrite(text.data(), 1, text.size(), stdout);
    return absl::OkStatus();
  }

 private:
  std::string server_ = "127.0.0.1:50051";
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeStatusCommand() { return std::make_unique<StatusCommand>(); }

}  // namespace essor::cli
