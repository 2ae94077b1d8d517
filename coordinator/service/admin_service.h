// essor.v1.Admin: what operators ask. Adapter only.
#pragma once

#include "coordinator/service/request_service.h"
#include "essor/v1/admin.grpc.pb.h"

namespace essor::coordinator {

class AdminService final : public v1::Admin::CallbackService {
 public:
  // `service` is borrowed and must outlive the server.
  explicit AdminService(RequestService* service) : service_(*service) {}

  grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext* context,
                                       const v1::GetClusterRequest* request,
                                       v1::GetClusterResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  RequestService& service_;
};

}  // namespace essor::coordinator
