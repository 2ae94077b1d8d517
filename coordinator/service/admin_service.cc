#include "coordinator/service/admin_service.h"

#include <utility>

#include "common/version.h"
#include "coordinator/service/inference_service.h"

namespace essor::coordinator {

grpc::ServerUnaryReactor* AdminService::GetCluster(grpc::CallbackServerContext* context,
                                                   const v1::GetClusterRequest* /*request*/,
                                                   v1::GetClusterResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  service_.driver().DescribeCluster([this, reactor, response](v1::GetClusterResponse state) {
    *response = std::move(state);
    FillModelInfo(service_.model(), response->mutable_model());
    response->set_build(BuildId());
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const v1::DrainRequest* /*request*/,
                                              v1::DrainResponse* /*response*/) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  service_.driver().Drain();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace essor::coordinator
