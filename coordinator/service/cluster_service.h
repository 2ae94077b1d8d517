// essor.v1.Cluster: the workers' streams. Adapter only: messages go to the driver in order.
#pragma once

#include <atomic>
#include <memory>

#include "coordinator/service/driver.h"
#include "essor/v1/cluster.grpc.pb.h"

namespace essor::coordinator {

// Serve it on the cluster port only. `driver` is borrowed and must outlive the server.
class ClusterService final : public v1::Cluster::CallbackService {
 public:
  explicit ClusterService(Driver* driver) : driver_(*driver) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Join(
      grpc::CallbackServerContext* context) override;

 private:
  Driver& driver_;
  std::atomic<int> num_streams_{0};
};

}  // namespace essor::coordinator
