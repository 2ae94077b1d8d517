// essor.v1.Inference over the gRPC callback API. Adapter only: proto to RequestService and back.
#pragma once

#include "coordinator/service/request_service.h"
#include "essor/v1/inference.grpc.pb.h"

namespace essor::coordinator {

// A client that does not read is cut off (RESOURCE_EXHAUSTED) once this much waits for it.
inline constexpr size_t kMaxUnreadBytes = 256 << 10;
// The same for scores and for answers with the prompt or of the best of several continuations,
// which are told in one go.
inline constexpr size_t kMaxUnreadScoreBytes = 64 << 20;

class InferenceService final : public v1::Inference::CallbackService {
 public:
  // `service` is borrowed and must outlive the server.
  explicit InferenceService(RequestService* service) : service_(*service) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::ScoreResponse>* Score(grpc::CallbackServerContext* context,
                                                     const v1::ScoreRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  RequestService& service_;
};

// What ModelInfo says of `model`; shared with the Admin service.
void FillModelInfo(const ServedModel& model, v1::ModelInfo* info);

}  // namespace essor::coordinator
