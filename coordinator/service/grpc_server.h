// A gRPC server with this project's limits, and the standard health service.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace essor::coordinator {

// Listens as soon as it exists. Thread-safe.
class GrpcServer {
 public:
  struct Options {
    std::string address;                   // host:port; port 0 = a free one
    std::vector<grpc::Service*> services;  // borrowed
    bool health = false;                   // serve grpc.health.v1, NOT_SERVING at first
    // Workers prove every now and then that they live; more often than clients may.
    bool worker_plane = false;
  };

  // Unavailable naming the address when it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const Options& options);

  // The address with the chosen port.
  const std::string& address() const { return address_; }
  // Health of the whole server and of the services by name.
  void SetServing(bool serving);
  // Ends calls that are still open at `deadline` and stops listening.
  void Shutdown(absl::Duration grace);

 private:
  GrpcServer() = default;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace essor::coordinator
