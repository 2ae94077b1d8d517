#include "client/inference_client.h"

#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "essor/v1/admin.grpc.pb.h"
#include "essor/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace essor::client {
namespace {

// Rows of logits come in pieces of some megabytes.
constexpr int kMessageBytesMax = 64 << 20;

class GrpcInferenceClient : public InferenceClient {
 public:
  explicit GrpcInferenceClient(const std::shared_ptr<grpc::Channel>& channel)
      : inference_(v1::Inference::NewStub(channel)), admin_(v1::Admin::NewStub(channel)) {}

  absl::Status Generate(const v1::GenerateRequest& request,
                        const std::function<bool(const v1::GenerateResponse&)>& on_part) override {
    grpc::ClientContext context;
    const auto reader = inference_->Generate(&context, request);
    v1::GenerateResponse part;
    while (reader->Read(&part)) {
      if (!on_part(part)) context.TryCancel();
    }
    return FromGrpcStatus(reader->Finish());
  }

  absl::Status Score(
      const v1::ScoreRequest& request,
      const std::function<absl::Status(const v1::ScoreResponse&)>& on_part) override {
    grpc::ClientContext context;
    const auto reader = inference_->Score(&context, request);
    v1::ScoreResponse part;
    absl::Status status;
    while (reader->Read(&part)) {
      status.Update(on_part(part));
      if (!status.ok()) context.TryCancel();
    }
    const absl::Status end = FromGrpcStatus(reader->Finish());
    return status.ok() ? end : status;
  }

  absl::StatusOr<v1::ModelInfo> GetModel() override {
    grpc::ClientContext context;
    v1::GetModelResponse response;
    ESSOR_RETURN_IF_ERROR(
        FromGrpcStatus(inference_->GetModel(&context, v1::GetModelRequest(), &response)));
    return response.model();
  }

  absl::StatusOr<v1::GetClusterResponse> GetCluster(absl::Duration timeout) override {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    v1::GetClusterResponse response;
    ESSOR_RETURN_IF_ERROR(
        FromGrpcStatus(admin_->GetCluster(&context, v1::GetClusterRequest(), &response)));
    return response;
  }

 private:
  const std::unique_ptr<v1::Inference::Stub> inference_;
  const std::unique_ptr<v1::Admin::Stub> admin_;
};

}  // namespace

std::unique_ptr<InferenceClient> InferenceClient::Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  // Whoever waits for a cluster to start asks again soon; gRPC's back-off of seconds would add to
  // every start.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  return std::make_unique<GrpcInferenceClient>(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

}  // namespace essor::client
