#include "coordinator/coordinator.h"

#include <utility>

#include "common/error_details.h"
#include "common/status_macros.h"

namespace essor::coordinator {
namespace {

constexpr size_t kMaxQueuedTexts = 4096;
// What calls get to end by themselves when the servers stop; requests have ended before.
constexpr absl::Duration kShutdownGrace = absl::Milliseconds(500);

// What the scheduler must know of the model comes from the one description of it.
Driver::Options WithModel(Driver::Options options, const ServedModel& model) {
  options.output_model = model.output_model();
  return options;
}

}  // namespace

Coordinator::Coordinator(const Options& options, const ServedModel* model)
    : driver_(WithModel(options.driver, *model), &Clock::Steady(), &metrics_),
      pool_(options.text_threads, kMaxQueuedTexts),
      requests_(model, &driver_, &pool_),
      inference_(&requests_),
      admin_(&requests_),
      cluster_(&driver_) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(Options options,
                                                                const ServedModel* model) {
  std::unique_ptr<Coordinator> coordinator(new Coordinator(options, model));
  ESSOR_RETURN_IF_ERROR(coordinator->Listen(options));
  return coordinator;
}

absl::Status Coordinator::Listen(const Options& options) {
  ESSOR_ASSIGN_OR_RETURN(public_server_, GrpcServer::Start({.address = options.listen_grpc,
                                                            .services = {&inference_, &admin_},
                                                            .health = true}));
  ESSOR_ASSIGN_OR_RETURN(
      http_server_, HttpServer::Start({.address = options.listen_http}, &requests_, &metrics_));
  // Last: a worker that joins finds everything else in place.
  ESSOR_ASSIGN_OR_RETURN(cluster_server_, GrpcServer::Start({.address = options.listen_cluster,
                                                             .services = {&cluster_},
                                                             .worker_plane = true}));
  return absl::OkStatus();
}

Coordinator::~Coordinator() {
  // Requests end first, then their front ends, then the workers' streams; the driver outlives all
  // of them.
  AbortRequests();
  if (http_server_ != nullptr) http_server_->Shutdown();
  if (public_server_ != nullptr) public_server_->Shutdown(kShutdownGrace);
  if (cluster_server_ != nullptr) cluster_server_->Shutdown(absl::ZeroDuration());
}

void Coordinator::Poll() { public_server_->SetServing(driver_.Ready()); }

void Coordinator::Drain() {
  driver_.Drain();
  Poll();
}

void Coordinator::AbortRequests() {
  driver_.Drain();
  driver_.AbortRequests(
      WithReason(absl::UnavailableError("the server is shutting down"), "DRAINING"));
}

}  // namespace essor::coordinator
