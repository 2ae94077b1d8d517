#include "coordinator/service/grpc_server.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"

namespace essor::coordinator {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;
constexpr const char* kHealthNames[] = {"essor.v1.Inference", "essor.v1.Admin"};

// gRPC's own lines, internals of several hundred bytes: what they mean is said by our statuses.
void LogForGrpc(gpr_log_func_args* args) { spdlog::debug("gRPC: {}", LogSafe(args->message, 512)); }

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const Options& options) {
  ESSOR_ASSIGN_OR_RETURN(const HostPort wanted, ParseHostPort(options.address));
  // All three are process-wide switches; the builder reads the last two.
  gpr_set_log_function(LogForGrpc);
  grpc::EnableDefaultHealthCheckService(options.health);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  // A port that another process listens on must be an error, not shared.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  if (options.worker_plane) {
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  }
  for (grpc::Service* service : options.services) builder.RegisterService(service);
  std::unique_ptr<GrpcServer> server(new GrpcServer());
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.address, ": the port is in use or not allowed"));
  }
  const bool v6 = wanted.host.find(':') != std::string::npos;
  server->address_ = absl::StrCat(v6 ? "[" : "", wanted.host, v6 ? "]" : "", ":", port);
  if (options.health) server->SetServing(false);
  return server;
}

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* const health = server_->GetHealthCheckService();
  if (health == nullptr) return;
  health->SetServingStatus("", serving);
  for (const char* name : kHealthNames) health->SetServingStatus(name, serving);
}

void GrpcServer::Shutdown(absl::Duration grace) {
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
  server_->Wait();
}

}  // namespace essor::coordinator
