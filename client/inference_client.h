// The C++ client library: essor.v1.Inference and Admin with absl::Status.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "essor/v1/admin.pb.h"
#include "essor/v1/inference.pb.h"

namespace essor::client {

// A connection to one coordinator. Thread-safe; calls block. Statuses are the server's own, with
// their details (common/error_details.h); Unavailable when nobody answers.
//
//   auto client = InferenceClient::Connect("127.0.0.1:50051");
//   v1::GenerateRequest request;
//   request.set_text("Once upon a time");
//   absl::Status status = client->Generate(request, [](const v1::GenerateResponse& part) {
//     std::cout << part.text() << std::flush;
//     return true;
//   });
class InferenceClient {
 public:
  static std::unique_ptr<InferenceClient> Connect(const std::string& address);
  virtual ~InferenceClient() = default;

  // Calls `on_part` for every message, in order, on the calling thread; false cancels the call
  // (the status is then Cancelled).
  virtual absl::Status Generate(
      const v1::GenerateRequest& request,
      const std::function<bool(const v1::GenerateResponse&)>& on_part) = 0;
  virtual absl::Status Score(
      const v1::ScoreRequest& request,
      const std::function<absl::Status(const v1::ScoreResponse&)>& on_part) = 0;
  virtual absl::StatusOr<v1::ModelInfo> GetModel() = 0;
  virtual absl::StatusOr<v1::GetClusterResponse> GetCluster(absl::Duration timeout) = 0;
};

}  // namespace essor::client
