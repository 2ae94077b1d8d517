// The whole coordinator except for reading flags and files: driver, services and listeners.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/http/http_server.h"
#include "coordinator/service/admin_service.h"
#include "coordinator/service/cluster_service.h"
#include "coordinator/service/driver.h"
#include "coordinator/service/grpc_server.h"
#include "coordinator/service/inference_service.h"
#include "coordinator/service/request_service.h"
#include "coordinator/service/served_model.h"

namespace essor::coordinator {

// Listens from Start() on. Call Poll() about every 100 ms. Thread-compatible.
class Coordinator {
 public:
  struct Options {
    Driver::Options driver;
    std::string listen_grpc = "127.0.0.1:50051";
    std::string listen_http = "127.0.0.1:8000";
    std::string listen_cluster = "127.0.0.1:50052";
    int text_threads = 2;
  };

  // `model` is borrowed and must outlive the coordinator. Unavailable naming the address when one
  // cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(Options options,
                                                            const ServedModel* model);
  ~Coordinator();

  // Brings gRPC health up to date.
  void Poll();
  void Drain();
  // Ends the requests that still run with Unavailable.
  void AbortRequests();
  bool drained() const { return driver_.draining() && driver_.num_alive_requests() == 0; }
  absl::Status failure() const { return driver_.failure(); }

  Driver& driver() { return driver_; }
  CoordinatorMetrics& metrics() { return metrics_; }
  std::string grpc_address() const { return public_server_->address(); }
  std::string cluster_address() const { return cluster_server_->address(); }
  std::string http_address() const { return http_server_->address(); }

 private:
  Coordinator(const Options& options, const ServedModel* model);
  absl::Status Listen(const Options& options);

  CoordinatorMetrics metrics_;
  Driver driver_;
  TextPool pool_;
  RequestService requests_;
  InferenceService inference_;
  AdminService admin_;
  ClusterService cluster_;
  std::unique_ptr<GrpcServer> public_server_;
  std::unique_ptr<GrpcServer> cluster_server_;
  std::unique_ptr<HttpServer> http_server_;
};

}  // namespace essor::coordinator
