// The C++ client library: essor.v1.Inference and Admin with absl::Status.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "essor/v1/admin.pb.h"
#include "essor/v1/inference.pb.h"

namespace essor::client {

// Asked about every 50 ms during a long call; true cancels the call. Empty: never.
using StopFn = std::function<bool()>;

// A connection to one coordinator. Thread-safe; calls block, and every callback runs on the calling
// thread. Statuses are the server's own, with their details (common/error_details.h); Unavailable
// naming the address when nobody answers; Cancelled when the caller stopped the call.
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
  // `address` is host:port. Connects in the background, without any HTTP proxy.
  static std::unique_ptr<InferenceClient> Connect(const std::string& address);
  virtual ~InferenceClient() = default;

  // Calls `on_part` for every message, in order; false cancels the call.
  absl::Status Generate(const v1::GenerateRequest& request,
                        const std::function<bool(const v1::GenerateResponse&)>& on_part,
                        const StopFn& stop = {});

  // All requests at once, each on a stream of its own. `on_part` gets the request's index; false
  // cancels that request. One status for each request.
  virtual std::vector<absl::Status> GenerateAll(
      const std::vector<v1::GenerateRequest>& requests,
      const std::function<bool(size_t index, const v1::GenerateResponse&)>& on_part,
      const StopFn& stop) = 0;

  // An error of `on_part` cancels the call and is its result.
  virtual absl::Status Score(const v1::ScoreRequest& request,
                             const std::function<absl::Status(const v1::ScoreResponse&)>& on_part,
                             const StopFn& stop) = 0;

  virtual absl::StatusOr<v1::ModelInfo> GetModel(absl::Duration timeout) = 0;
  virtual absl::StatusOr<v1::GetClusterResponse> GetCluster(absl::Duration timeout) = 0;
};

}  // namespace essor::client
